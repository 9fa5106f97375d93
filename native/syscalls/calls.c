/* Thin wrappers of system calls that neither Python nor Debian 12's glibc offers in one form. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calls.cdef"

static int result(long returned)
{
	return returned < 0 ? -errno : (int)returned;
}

int pe_pidfd_open(int pid, unsigned int flags)
{
	return result(syscall(SYS_pidfd_open, pid, flags));
}

int pe_pidfd_send_signal(int pidfd, int signal, unsigned int flags)
{
	return result(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, flags));
}

int pe_pidfd_getfd(int pidfd, int target)
{
	return result(syscall(SYS_pidfd_getfd, pidfd, target, 0u));
}

int pe_openat2(int directory, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
	struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};

	return result(syscall(SYS_openat2, directory, path, &how, sizeof(how)));
}

int pe_renameat2(int old_directory, const char *old_path, int new_directory, const char *new_path,
		 unsigned int flags)
{
	return result(syscall(SYS_renameat2, old_directory, old_path, new_directory, new_path, flags));
}

int pe_close_range(unsigned int first, unsigned int last, unsigned int flags)
{
	return result(syscall(SYS_close_range, first, last, flags));
}

int pe_open_tree(int directory, const char *path, unsigned int flags)
{
	return result(syscall(SYS_open_tree, directory, path, flags | OPEN_TREE_CLOEXEC));
}

int pe_move_mount(int from_directory, const char *from_path, int to_directory, const char *to_path,
		  unsigned int flags)
{
	return result(syscall(SYS_move_mount, from_directory, from_path, to_directory, to_path, flags));
}

int pe_mount_setattr(int directory, const char *path, unsigned int flags, uint64_t set, uint64_t clear,
		     uint64_t propagation, int user_namespace)
{
	struct mount_attr attributes = {
		.attr_set = set,
		.attr_clr = clear,
		.propagation = propagation,
		.userns_fd = user_namespace < 0 ? 0 : (uint64_t)user_namespace,
	};

	return result(syscall(SYS_mount_setattr, directory, path, flags, &attributes, sizeof(attributes)));
}

int pe_fsopen(const char *type, unsigned int flags)
{
	return result(syscall(SYS_fsopen, type, flags | FSOPEN_CLOEXEC));
}

int pe_fsconfig(int context, unsigned int command, const char *key, const char *value, int auxiliary)
{
	return result(syscall(SYS_fsconfig, context, command, key, value, auxiliary));
}

int pe_fsmount(int context, unsigned int flags, unsigned int attributes)
{
	return result(syscall(SYS_fsmount, context, flags | FSMOUNT_CLOEXEC, attributes));
}

int pe_mount(const char *source, const char *target, const char *type, unsigned long flags,
	     const char *data)
{
	return result(syscall(SYS_mount, source, target, type, flags, data));
}

int pe_umount2(const char *target, int flags)
{
	return result(syscall(SYS_umount2, target, flags));
}

int pe_bpf_load_cgroup_device(const char *instructions, unsigned int count, char *log,
			      unsigned int log_size)
{
	union bpf_attr attributes;

	/* memset, not an initialiser: the kernel refuses set bits behind the members of this command. */
	memset(&attributes, 0, sizeof(attributes));
	attributes.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
	attributes.insns = (uint64_t)(uintptr_t)instructions;
	attributes.insn_cnt = count;
	attributes.license = (uint64_t)(uintptr_t) "Apache-2.0";
	if (log_size > 0) {
		attributes.log_buf = (uint64_t)(uintptr_t)log;
		attributes.log_size = log_size;
		attributes.log_level = 1;
	}
	return result(syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes)));
}

int pe_bpf_attach_cgroup_device(int cgroup, int program, unsigned int flags)
{
	union bpf_attr attributes;

	memset(&attributes, 0, sizeof(attributes));
	attributes.target_fd = (uint32_t)cgroup;
	attributes.attach_bpf_fd = (uint32_t)program;
	attributes.attach_type = BPF_CGROUP_DEVICE;
	attributes.attach_flags = flags;
	return result(syscall(SYS_bpf, BPF_PROG_ATTACH, &attributes, sizeof(attributes)));
}

int pe_waitid(int idtype, int id, int options, int *code, int *status)
{
	siginfo_t info;

	memset(&info, 0, sizeof(info));
	if (syscall(SYS_waitid, idtype, id, &info, options | __WALL, NULL) < 0)
		return -errno;
	*code = info.si_code;
	*status = info.si_status;
	return info.si_pid;
}

int pe_seccomp_version(void)
{
	struct version {
		unsigned int major, minor, micro;
	};
	const struct version *(*version)(void);
	void *library = dlopen("libseccomp.so.2", RTLD_LAZY | RTLD_LOCAL);
	int number = -ENOENT;

	if (library == NULL)
		return number;
	*(void **)&version = dlsym(library, "seccomp_version");
	if (version != NULL)
		number = (int)(version()->major << 16 | version()->minor << 8 | version()->micro);
	dlclose(library);
	return number;
}
