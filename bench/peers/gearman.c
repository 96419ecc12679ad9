/* gearman's C library: `gearman worker PORT` and `gearman client PORT`.
 *
 * The client takes lines `FUNCTION COUNT [WORKLOAD]` and answers `done` once all results are there;
 * a COUNT of 0 gives one job and waits for nothing. The functions are those of tasks.py. */

#include <libgearman/gearman.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { AT_A_TIME = 1000, BUSY_S = 60, PATH_BYTES = 4096, WAIT_MS = 30000 };
extern char **environ;

static void check(gearman_return_t code, const char *what) {
  if (gearman_failed(code)) {
    fprintf(stderr, "%s: %s\n", what, gearman_strerror(code));
    exit(1);
  }
}

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec + at.tv_nsec / 1e9;
}

static gearman_return_t noop(gearman_job_st *job, void *context) {
  (void)context;
  return gearman_job_send_complete(job, NULL, 0);
}

static gearman_return_t run_true(gearman_job_st *job, void *context) {
  char *argv[] = {"/bin/true", NULL};
  pid_t pid;
  int status;
  (void)context;
  if (posix_spawn(&pid, argv[0], NULL, NULL, argv, environ) != 0 || waitpid(pid, &status, 0) < 0)
    return GEARMAN_WORK_FAIL;
  return gearman_job_send_complete(job, NULL, 0);
}

static gearman_return_t busy(gearman_job_st *job, void *context) {
  char path[PATH_BYTES] = "", beats[PATH_BYTES + 8];
  size_t size = gearman_job_workload_size(job);
  (void)context;
  if (size >= sizeof path - 8) return GEARMAN_WORK_FAIL;
  memcpy(path, gearman_job_workload(job), size);
  snprintf(beats, sizeof beats, "%s.beats", path);
  int shared = open(beats, O_RDWR | O_CREAT, 0600);
  if (shared < 0 || ftruncate(shared, 8) < 0) return GEARMAN_WORK_FAIL;
  volatile uint64_t *count = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
  if (count == MAP_FAILED) return GEARMAN_WORK_FAIL;
  FILE *starts = fopen(path, "a");
  if (!starts) return GEARMAN_WORK_FAIL;
  fprintf(starts, "%d %.6f\n", getpid(), now());
  fclose(starts);
  for (double end = now() + BUSY_S; now() < end;) ++*count;
  return gearman_job_send_complete(job, NULL, 0);
}

static void work(in_port_t port) {
  gearman_worker_st *worker = gearman_worker_create(NULL);
  check(gearman_worker_add_server(worker, "127.0.0.1", port), "server");
  gearman_function_t noop_fn = gearman_function_create(noop);
  gearman_function_t true_fn = gearman_function_create(run_true);
  gearman_function_t busy_fn = gearman_function_create(busy);
  check(gearman_worker_define_function(worker, "noop", 4, noop_fn, 0, NULL), "noop");
  check(gearman_worker_define_function(worker, "true", 4, true_fn, 0, NULL), "true");
  check(gearman_worker_define_function(worker, "busy", 4, busy_fn, 0, NULL), "busy");
  for (;;) check(gearman_worker_work(worker), "work");
}

static void run(gearman_client_st *client, const char *function, int count) {
  while (count > 0) {
    int some = count < AT_A_TIME ? count : AT_A_TIME;
    for (int number = 0; number < some; number++) {
      gearman_return_t code;
      gearman_client_add_task(client, NULL, NULL, function, NULL, NULL, 0, &code);
      check(code, "task");
    }
    check(gearman_client_run_tasks(client), "tasks");
    gearman_client_task_free_all(client);
    count -= some;
  }
}

static void serve(in_port_t port) {
  gearman_client_st *client = gearman_client_create(NULL);
  char function[16], workload[PATH_BYTES], line[2 * PATH_BYTES], handle[GEARMAN_JOB_HANDLE_SIZE];
  int count;
  check(gearman_client_add_server(client, "127.0.0.1", port), "server");
  gearman_client_set_timeout(client, WAIT_MS);
  while (fgets(line, sizeof line, stdin)) {
    workload[0] = 0;
    if (sscanf(line, "%15s %d %4095s", function, &count, workload) < 2) exit(2);
    if (count)
      run(client, function, count);
    else
      check(gearman_client_do_background(client, function, NULL, workload, strlen(workload), handle),
            "background");
    puts("done");
    fflush(stdout);
  }
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  in_port_t port = (in_port_t)atoi(argv[2]);
  if (strcmp(argv[1], "worker") == 0)
    work(port);
  else
    serve(port);
  return 0;
}
