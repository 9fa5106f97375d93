/* Holds a user namespace, and a mount namespace inside of it, for as long as it runs.
 *
 * Started by pyengine.linux.userns with nothing but descriptors 3 (from the engine) and 4 (to the engine). A user
 * namespace cannot be given a range of ids by those inside of it, so:
 *
 *     holder                              engine
 *     unshare(CLONE_NEWUSER); writes 'u'  ->
 *                                     <-  writes the id maps to /proc/PID, then 'm'
 *     unshare(CLONE_NEWNS); writes 'm'    ->
 *
 * It stays behind when the engine ends, and goes on SIGTERM. If the engine dies before the end of this, the pipe is
 * closed and the holder ends too. A failure is reported as 'e', the step, and errno. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { FROM_ENGINE = 3, TO_ENGINE = 4 };

static void say(char word)
{
	if (write(TO_ENGINE, &word, 1) != 1)
		_exit(1);
}

static void fail(char step)
{
	unsigned char message[3] = {'e', (unsigned char)step, (unsigned char)errno};

	_exit(write(TO_ENGINE, message, sizeof(message)) == sizeof(message) ? 1 : 2);
}

int main(void)
{
	char word;

	/* The host program's directory, and with it its file system, must not be kept busy. */
	if (chdir("/") < 0)
		fail('d');
	prctl(PR_SET_NAME, "pyengine-userns");
	if (unshare(CLONE_NEWUSER) < 0)
		fail('u');
	say('u');
	if (read(FROM_ENGINE, &word, 1) != 1 || word != 'm')
		_exit(1);
	if (unshare(CLONE_NEWNS) < 0)
		fail('m');
	/* What the host mounts later is seen here too, nothing goes the other way. */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		fail('p');
	close(FROM_ENGINE);
	say('m');
	close(TO_ENGINE); /* what the engine waits for */
	for (;;)
		pause();
}
