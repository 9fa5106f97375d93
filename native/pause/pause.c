/* The first process of a pod: holds its namespaces, adopts and reaps what its containers orphan, ends when asked to.
 *
 * As pid 1 it gets only the signals that it has a handler for or waits for. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
	siginfo_t info;
	sigset_t set;
	int number;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (;;) {
		number = sigwaitinfo(&set, &info);
		if (number == SIGTERM || number == SIGINT)
			return 0;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}
