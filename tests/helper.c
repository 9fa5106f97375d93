/* The whole root file system of most system tests: one static program, a verb an observation or an act.
 *
 *   helper VERB [ARGUMENT…]; several commands may follow each other, separated by the argument "--".
 *
 * Exit status: that of the last verb; 0 when it did what it should, 1 with "VERB: what: reason" on stderr when not. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static const char *verb;

static int failed(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", verb, what, strerror(errno));
	return 1;
}

static int show_fd(int fd)
{
	char buffer[65536];
	ssize_t length;

	while ((length = read(fd, buffer, sizeof(buffer))) > 0)
		for (ssize_t done = 0; done < length;) {
			ssize_t now = write(1, buffer + done, (size_t)(length - done));

			if (now < 0)
				return failed("stdout");
			done += now;
		}
	return length < 0 ? failed("read") : 0;
}

static int cat(int argc, char **argv)
{
	int result = 0;

	if (argc == 0)
		return show_fd(0);
	for (int i = 0; i < argc; i++) {
		int fd = open(argv[i], O_RDONLY);

		if (fd < 0) {
			result = failed(argv[i]);
			continue;
		}
		result |= show_fd(fd);
		close(fd);
	}
	return result;
}

static int echo(int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		printf("%s%s", i ? " " : "", argv[i]);
	puts("");
	return 0;
}

static int env(int argc, char **argv)
{
	(void)argc, (void)argv;
	for (char **variable = environ; *variable != NULL; variable++)
		puts(*variable);
	return 0;
}

/* uid, gid, groups, capabilities, NoNewPrivs, Seccomp: the lines of /proc/self/status that say who we are. */
static int id(int argc, char **argv)
{
	static const char *const keys[] = {"Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp:", "Umask:"};
	FILE *file = fopen("/proc/self/status", "re");
	char line[4096];

	(void)argc, (void)argv;
	if (file == NULL)
		return failed("/proc/self/status");
	while (fgets(line, sizeof(line), file) != NULL)
		for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
			if (strncmp(line, keys[i], strlen(keys[i])) == 0)
				fputs(line, stdout);
	fclose(file);
	return 0;
}

/* ids without /proc */
static int ids(int argc, char **argv)
{
	gid_t groups[256];
	int count = getgroups(256, groups);

	(void)argc, (void)argv;
	printf("%d %d", (int)getuid(), (int)getgid());
	for (int i = 0; i < count; i++)
		printf(" %d", (int)groups[i]);
	puts("");
	return 0;
}

static int ls_fd(int argc, char **argv)
{
	char target[4096];

	(void)argc, (void)argv;
	for (int fd = 0; fd < 1024; fd++) {
		struct stat status;
		char path[64];
		ssize_t length;

		if (fstat(fd, &status) < 0)
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		length = readlink(path, target, sizeof(target) - 1);
		target[length < 0 ? 0 : length] = 0;
		printf("%d %s\n", fd, target);
	}
	return 0;
}

static int ls(int argc, char **argv)
{
	struct dirent **entries;
	int count;

	for (int i = 0; i < (argc ? argc : 1); i++) {
		count = scandir(argc ? argv[i] : ".", &entries, NULL, alphasort);
		if (count < 0)
			return failed(argc ? argv[i] : ".");
		for (int j = 0; j < count; j++)
			if (strcmp(entries[j]->d_name, ".") != 0 && strcmp(entries[j]->d_name, "..") != 0)
				puts(entries[j]->d_name);
	}
	return 0;
}

/* type, mode, uid, gid, size, device numbers, path */
static int show_stat(int argc, char **argv)
{
	static const char types[] = "?pc?d?b?-?l?s???";
	struct stat status;
	int result = 0;

	for (int i = 0; i < argc; i++) {
		if (lstat(argv[i], &status) < 0) {
			result = failed(argv[i]);
			continue;
		}
		printf("%c %04o %d %d %lld %u:%u %s\n", types[status.st_mode >> 12 & 15], status.st_mode & 07777,
		       (int)status.st_uid, (int)status.st_gid, (long long)status.st_size, major(status.st_rdev),
		       minor(status.st_rdev), argv[i]);
	}
	return result;
}

static int show_link(int argc, char **argv)
{
	char target[4096];
	ssize_t length = argc < 1 ? -1 : readlink(argv[0], target, sizeof(target) - 1);

	if (length < 0)
		return failed(argc < 1 ? "path" : argv[0]);
	target[length] = 0;
	puts(target);
	return 0;
}

static int write_file(int argc, char **argv)
{
	int fd = argc < 1 ? -1 : open(argv[0], O_WRONLY | O_CREAT | (strcmp(verb, "append") ? O_TRUNC : O_APPEND), 0644);

	if (fd < 0)
		return failed(argc < 1 ? "path" : argv[0]);
	for (int i = 1; i < argc; i++)
		if (write(fd, argv[i], strlen(argv[i])) < 0)
			return failed(argv[0]);
	close(fd);
	return 0;
}

static int path_verb(int argc, char **argv)
{
	int result = 0;

	for (int i = 0; i < argc; i++) {
		int done = -1;

		if (strcmp(verb, "mkdir") == 0)
			done = mkdir(argv[i], 0755);
		else if (strcmp(verb, "rm") == 0)
			done = unlink(argv[i]);
		else if (strcmp(verb, "rmdir") == 0)
			done = rmdir(argv[i]);
		else if (strcmp(verb, "chdir") == 0)
			done = chdir(argv[i]);
		else if (strcmp(verb, "umount") == 0)
			done = umount2(argv[i], MNT_DETACH);
		if (done < 0)
			result = failed(argv[i]);
	}
	return result;
}

static int two_paths(int argc, char **argv)
{
	int done = -1;

	errno = EINVAL;
	if (argc < 2)
		return failed("arguments");
	if (strcmp(verb, "symlink") == 0)
		done = symlink(argv[0], argv[1]);
	else if (strcmp(verb, "link") == 0)
		done = link(argv[0], argv[1]);
	else if (strcmp(verb, "mv") == 0)
		done = rename(argv[0], argv[1]);
	else if (strcmp(verb, "chmod") == 0)
		done = chmod(argv[1], (mode_t)strtoul(argv[0], NULL, 8));
	else if (strcmp(verb, "chown") == 0)
		done = chown(argv[1], (uid_t)atoi(argv[0]), (gid_t)atoi(argv[0]));
	else if (strcmp(verb, "bind") == 0)
		done = mount(argv[0], argv[1], NULL, MS_BIND | MS_REC, NULL);
	return done < 0 ? failed(argv[1]) : 0;
}

static int pwd(int argc, char **argv)
{
	char path[4096];

	(void)argc, (void)argv;
	if (syscall(SYS_getcwd, path, sizeof(path)) < 0)
		return failed("getcwd");
	puts(path);
	return 0;
}

static int hostname(int argc, char **argv)
{
	struct utsname names;

	(void)argc, (void)argv;
	uname(&names);
	printf("%s %s\n", names.nodename, names.domainname);
	return 0;
}

static int namespaces(int argc, char **argv)
{
	static const char *const names[] = {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"};
	char path[64], target[64];

	(void)argc, (void)argv;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		ssize_t length;

		snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
		length = readlink(path, target, sizeof(target) - 1);
		if (length < 0)
			return failed(path);
		target[length] = 0;
		puts(target);
	}
	return 0;
}

static int limits(int argc, char **argv)
{
	(void)argc, (void)argv;
	for (int resource = 0; resource < RLIM_NLIMITS; resource++) {
		struct rlimit limit;

		if (getrlimit((__typeof__(RLIMIT_CPU))resource, &limit) == 0)
			printf("%d %lld %lld\n", resource, (long long)limit.rlim_cur, (long long)limit.rlim_max);
	}
	return 0;
}

static int sleep_for(int argc, char **argv)
{
	double seconds = argc > 0 ? atof(argv[0]) : 1e9;
	struct timespec left = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
	return 0;
}

static volatile sig_atomic_t seen;

static void note(int number)
{
	seen = number;
}

/* Waits until a signal comes and says which. */
static int await_signal(int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		signal(atoi(argv[i]), note);
	puts("ready");
	fflush(stdout);
	while (seen == 0)
		poll(NULL, 0, 10);
	printf("signal %d\n", (int)seen);
	return 0;
}

static int stubborn(int argc, char **argv)
{
	(void)argc, (void)argv;
	for (int number = 1; number < 32; number++)
		signal(number, SIG_IGN);
	puts("ready");
	fflush(stdout);
	while (pause() < 0)
		;
	return 0;
}

/* spam BYTES [LINE-LENGTH [stderr]]: predictable bytes, a line feed at the end of each line; 0: no line feeds */
static int spam(int argc, char **argv)
{
	long long total = argc > 0 ? atoll(argv[0]) : 0, line = argc > 1 ? atoll(argv[1]) : 80;
	int fd = argc > 2 ? 2 : 1;
	static char buffer[1 << 16];

	for (long long sent = 0; sent < total;) {
		long long length = total - sent < (long long)sizeof(buffer) ? total - sent : (long long)sizeof(buffer);

		for (long long i = 0; i < length; i++)
			buffer[i] = line > 0 && (sent + i) % line == line - 1 ? '\n' : (char)('a' + (sent + i) % 26);
		for (long long done = 0; done < length;) {
			ssize_t now = write(fd, buffer + done, (size_t)(length - done));

			if (now < 0)
				return failed("write");
			done += now;
		}
		sent += length;
	}
	return 0;
}

/* forks COUNT processes that wait; says how many there are */
static int forks(int argc, char **argv)
{
	int count = argc > 0 ? atoi(argv[0]) : 1, made = 0;

	for (; made < count && made < 1000; made++) {
		pid_t pid = fork();

		if (pid < 0)
			break;
		if (pid == 0)
			for (;;)
				pause();
	}
	printf("%d%s%s\n", made, made < count ? " " : "", made < count ? strerror(errno) : "");
	return 0;
}

/* A child in the background that holds stdout for some seconds. */
static int background(int argc, char **argv)
{
	fflush(stdout);
	if (fork() == 0) {
		signal(SIGHUP, SIG_IGN);
		_exit(sleep_for(argc, argv));
	}
	return 0;
}

static int tty(int argc, char **argv)
{
	struct winsize size = {0};

	(void)argc, (void)argv;
	ioctl(0, TIOCGWINSZ, &size);
	printf("%d %d %d %d %d %s\n", isatty(0), isatty(1), isatty(2), size.ws_row, size.ws_col,
	       open("/dev/tty", O_RDWR) < 0 ? "-" : "controlling");
	return 0;
}

static int await_resize(int argc, char **argv)
{
	struct winsize size = {0};

	(void)argc, (void)argv;
	signal(SIGWINCH, note);
	puts("ready");
	fflush(stdout);
	while (seen == 0)
		poll(NULL, 0, 10);
	ioctl(0, TIOCGWINSZ, &size);
	printf("%d %d\n", size.ws_row, size.ws_col);
	return 0;
}

static int allocate(int argc, char **argv)
{
	size_t size = (size_t)(argc > 0 ? atoll(argv[0]) : 0);
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return failed("mmap");
	for (size_t i = 0; i < size; i += 4096)
		memory[i] = 1;
	puts("allocated");
	return 0;
}

/* Tries every way to write to a file: the answers of the kernel. */
static int open_for_write(int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		char path[64];
		int fd = open(argv[i], O_WRONLY), reference = open(argv[i], O_PATH);

		printf("%s", fd < 0 ? strerror(errno) : "open");
		if (reference >= 0) {
			snprintf(path, sizeof(path), "/proc/self/fd/%d", reference);
			fd = open(path, O_WRONLY);
			printf(", %s", fd < 0 ? strerror(errno) : "open");
			fd = mount(NULL, path, NULL, MS_REMOUNT | MS_BIND, NULL);
			printf(", %s", fd < 0 ? strerror(errno) : "remounted");
			fd = open(path, O_WRONLY);
			printf(", %s", fd < 0 ? strerror(errno) : "open");
		}
		puts("");
	}
	return 0;
}

/* Looks at every process that there is, until a file says stop, for one whose program can be written to: what an
 * attacker in a container does while somebody executes something in it. */
static int hunt(int argc, char **argv)
{
	double seconds = argc > 0 ? atof(argv[0]) : 1;
	struct timespec begin, now;
	long looked = 0, opened = 0, foreign = 0, fds = 0;
	struct stat own, other_file;

	stat("/proc/self/exe", &own);

	clock_gettime(CLOCK_MONOTONIC, &begin);
	puts("ready");
	fflush(stdout);
	do {
		for (int pid = 2; pid < 300; pid++) {
			char path[64];
			int fd;

			snprintf(path, sizeof(path), "/proc/%d/exe", pid);
			fd = open(path, O_PATH);
			if (fd >= 0) {
				char again[64];
				int writable;

				if (fstat(fd, &other_file) == 0 && other_file.st_ino == own.st_ino &&
				    other_file.st_dev == own.st_dev) {
					looked++; /* one of us, after its execve */
				} else {
					foreign++;
					snprintf(again, sizeof(again), "/proc/self/fd/%d", fd);
					writable = open(again, O_WRONLY);
					if (writable >= 0) {
						opened++;
						close(writable);
					}
				}
				close(fd);
			}
			for (int other = 3; other < 32; other++) {
				snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, other);
				fd = open(path, O_PATH);
				if (fd >= 0) {
					fds++;
					close(fd);
				}
			}
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) / 1e9 < seconds);
	printf("foreign %ld writable %ld descriptors %ld looked %s\n", foreign, opened, fds, looked ? "yes" : "no");
	return 0;
}

static int kill_self(int argc, char **argv)
{
	int number = argc > 0 ? atoi(argv[0]) : SIGKILL;

	fflush(stdout);
	if (getpid() != 1) {
		kill(getpid(), number);
		return failed("kill");
	}
	errno = EPERM; /* pid 1 of a pid namespace cannot */
	return failed("kill");
}

static int to_stderr(int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		fprintf(stderr, "%s%s", i ? " " : "", argv[i]);
	fputs("\n", stderr);
	return 0;
}

static int call(int argc, char **argv)
{
	long arguments[6] = {0};

	for (int i = 1; i < argc && i < 7; i++)
		arguments[i - 1] = atol(argv[i]);
	if (argc < 1 || syscall(atol(argv[0]), arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
				arguments[5]) < 0)
		return failed(argc < 1 ? "number" : argv[0]);
	puts("done");
	return 0;
}

static int device_node(int argc, char **argv)
{
	if (argc < 4 || mknod(argv[0], (argv[1][0] == 'b' ? S_IFBLK : S_IFCHR) | 0600,
			      makedev((unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]))) < 0)
		return failed(argc < 1 ? "path" : argv[0]);
	return 0;
}

static int no_close(int argc, char **argv)
{
	(void)argc, (void)argv;
	close(0), close(1), close(2);
	while (pause() < 0)
		;
	return 0;
}

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} verbs[] = {
	{"cat", cat}, {"echo", echo}, {"env", env}, {"id", id}, {"ids", ids}, {"ls-fd", ls_fd}, {"ls", ls},
	{"stat", show_stat}, {"readlink", show_link}, {"write", write_file}, {"append", write_file},
	{"mkdir", path_verb}, {"rm", path_verb}, {"rmdir", path_verb}, {"chdir", path_verb}, {"umount", path_verb},
	{"symlink", two_paths}, {"link", two_paths}, {"mv", two_paths}, {"chmod", two_paths}, {"chown", two_paths},
	{"bind", two_paths}, {"pwd", pwd}, {"hostname", hostname}, {"namespaces", namespaces}, {"limits", limits},
	{"sleep", sleep_for}, {"await-signal", await_signal}, {"stubborn", stubborn}, {"spam", spam}, {"forks", forks},
	{"background", background}, {"tty", tty}, {"await-resize", await_resize}, {"allocate", allocate},
	{"open-for-write", open_for_write}, {"hunt", hunt}, {"kill-self", kill_self}, {"stderr", to_stderr},
	{"syscall", call}, {"mknod", device_node}, {"close-all", no_close},
};

static int run(int argc, char **argv)
{
	verb = argc > 0 ? argv[0] : "true";
	if (strcmp(verb, "true") == 0)
		return 0;
	if (strcmp(verb, "exit") == 0)
		exit(argc > 1 ? atoi(argv[1]) : 0);
	if (strcmp(verb, "mounts") == 0) {
		char *file[] = {"/proc/self/mountinfo"};

		return cat(1, file);
	}
	if (strcmp(verb, "exec") == 0) {
		fflush(stdout);
		argv[argc] = NULL;
		execv(argv[1], argv + 1);
		return failed(argc > 1 ? argv[1] : "nothing");
	}
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strcmp(verbs[i].name, verb) == 0)
			return verbs[i].run(argc - 1, argv + 1);
	errno = ENOSYS;
	return failed("unknown verb");
}

int main(int argc, char **argv)
{
	int result = 0, start = 1;

	/* named after a verb it needs none */
	const char *name = strrchr(argv[0], '/') == NULL ? argv[0] : strrchr(argv[0], '/') + 1;

	if (strcmp(name, "true") == 0 || strcmp(name, "echo") == 0 || strcmp(name, "sleep") == 0)
		start = 0, argv[0] = (char *)(uintptr_t)name;
	setvbuf(stdout, NULL, isatty(1) ? _IOLBF : _IOFBF, 1 << 16);
	while (start < argc) {
		int end = start;

		while (end < argc && strcmp(argv[end], "--") != 0)
			end++;
		result = run(end - start, argv + start);
		fflush(stdout);
		start = end + 1;
	}
	return result;
}
