/* The supervisor. One process, one thread, one loop around poll; no allocation: all that it holds is in `monitor`. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "child.h"
#include "cleanup.h"
#include "faults.h"
#include "plan.h"

#define MAX_CLIENTS 64
#define MAX_CONTROLS 16
#define CHUNK (32 * 1024)
#define ATTACH_PACKET 8192
#define STDIN_BUFFER 8192
#define LOG_PARTS 1024
/* A client of the attach socket that takes nothing for so long is cut off: it must not hold up the container. */
#define CLIENT_PATIENCE_MS 5000
/* What a pipe can hold at most (fs.pipe-max-size): so much is read after the first process has ended, while others,
 * outside of its pid namespace, may go on writing. */
#define DRAIN_BUDGET (1024 * 1024)
#define TERMINAL_RETRY_MS 100 /* while nobody has it open, poll would report nothing but that */
#define LOG_RETRY_MIN_MS 100
#define LOG_RETRY_MAX_MS 1000
#define RESTART_DELAY_MIN_MS 100
#define RESTART_DELAY_MAX_MS 60000
#define RESTART_RESET_MS 10000

enum phase { PHASE_SETUP, PHASE_CREATED, PHASE_RUNNING, PHASE_RESTARTING, PHASE_EXITED, PHASE_FAILED };

enum control_kind { SAY_CREATED = 1, SAY_STARTED, SAY_FAILED, SAY_EXITED, SAY_RESTARTING };
enum engine_kind { HEAR_START = 1, HEAR_RELEASE, HEAR_STOPPING, HEAR_ALLOW_RESTART };

struct control_message {
	uint32_t kind, step;
	int32_t error, value;
	int64_t time, extra;
	char text[1024]; /* as much of it as there is */
};
#define CONTROL_HEADER offsetof(struct control_message, text)

struct client {
	int fd;
	bool lossless; /* the engine's own: it is waited for */
	bool reading;  /* it may still send stdin */
	bool deaf;     /* it takes nothing any more */
	size_t sent;   /* of the chunk */
	int64_t stalled_since;
};

struct monitor {
	struct plan plan;
	void *plan_data;
	size_t plan_length;
	const struct field *settings;
	enum phase phase;
	int64_t created_at, started_at, finished_at; /* ns since the epoch, 0: not yet */
	int64_t own_ticks, child_ticks;
	pid_t child, starter;
	bool child_ended, waiting, executing, report_ended, failed, start_wanted, start_given, killed;
	int status; /* of waitpid */
	pid_t orphan;
	int orphan_status;
	int code;
	bool oom;
	int64_t oom_before;
	int restarts;
	bool stopping, released, published, closing;
	int64_t restart_at, restart_delay, run_since; /* monotonic ms */
	struct child_message failure;
	/* descriptors, -1: none */
	int signals, report, cgroup, engine, ctl, attach, control;
	int out[2], in; /* stdout and stderr; the master of a terminal is out[0] and in */
	int64_t drain[2];
	int64_t terminal_retry_at;
	struct client clients[MAX_CLIENTS + 1];
	int controls[MAX_CONTROLS + 1]; /* [0] is the lease */
	/* what the container wrote and is not delivered yet */
	char chunk[CHUNK];
	size_t chunk_length, chunk_logged;
	int chunk_stream;
	bool log_blocked;
	int64_t log_retry_at, log_retry_delay;
	/* what clients sent and the container has not read yet */
	char input[STDIN_BUFFER];
	size_t input_length, input_done;
	bool input_ends;
};

extern struct monitor monitor;

int64_t now_realtime_ns(void);
int64_t now_monotonic_ms(void);

/* launch.c */
int launch_container(void);
void close_run(void);
void forget_plan(void);

/* state.c */
int64_t start_ticks(pid_t pid);
void write_state(void);
void write_error(void);
size_t failure_text(char *text, size_t size);

/* log.c */
int log_open(void);
void log_reopen(void);
bool log_push(void); /* true: the chunk is written */

/* streams.c */
void client_add(int fd, bool lossless);
void client_receive(struct client *client, short events);
void client_drop(struct client *client);
bool chunk_push(void); /* true: delivered everywhere */
void chunk_read(int stream);
void input_push(void);
void input_close(void);

/* control.c */
int listen_at(const char *name);
int control_open(void);
void control_accept(void);
void control_receive(int index);
void control_say(enum control_kind kind);
void ctl_receive(void);

/* finish.c */
int64_t read_oom_kills(void);
void kill_container(void);
void run_ended(void);
void finish(void);

/* progress.c */
bool report_receive(void); /* false: nothing more for now */
void reap(void);

/* loop.c */
void supervise(void);
void launch(void);
void give_start(void);
