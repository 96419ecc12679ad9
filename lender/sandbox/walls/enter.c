/*
 * The first step towards a process sandbox, and the last one into it.
 *
 *   enter -o PARENT COUNT [-i] -- COMMAND...
 *
 * Outside: die with the process PARENT, which started us, keep the first COUNT descriptors alone,
 * with -i run only when nothing else wants to, become the command.
 *
 *   enter [-l NUMBER=VALUE | -e NAME=VALUE | -n PATH | -r PATH | -x PATH | -w PATH | -d PATH]...
 *         -- COMMAND...
 *   enter -f NUMBER
 *   enter -c
 *
 * Inside: set the limits, give up the files, become the command.
 * -f hears all of these words from a descriptor, each with a zero byte behind it, as one piece of a
 * pipe: so it can stand behind walls before there is a command. -e sets a variable.
 * -l sets both limits of setrlimit(2) to VALUE. The others are Landlock's rules (landlock(7)) for
 * PATH and all below it, where it exists; what no rule names can't be opened, run or changed:
 * -n list the names in it, -r read, -x read and execute, -w whatever can be done with files but to
 * make devices, -d read and write devices and ask of them what they can do. No signal and no
 * abstract unix socket leads out, where the kernel can keep them in (ABI 6).
 * The rules come after all mounts are made, since nobody inside of them can mount any more.
 *
 * It ends with 127 where there is no such command, 126 where it can't be executed, as a shell
 * would, and 125 where it failed before that. -c tells by 0 whether the kernel keeps to the rules.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel's headers may be older than the kernel: its numbers, by our names. */
enum { CLOSE_RANGE = 436, CREATE_RULESET = 444, ADD_RULE = 445, RESTRICT_SELF = 446 };
enum { GET_VERSION = 1, PATH_BENEATH = 1 };
enum { ABSTRACT_UNIX_SOCKET = 1 << 0, SIGNAL = 1 << 1 };
enum {
    EXECUTE = 1 << 0,
    WRITE_FILE = 1 << 1,
    READ_FILE = 1 << 2,
    READ_DIR = 1 << 3,
    MAKE_CHAR = 1 << 6,
    MAKE_BLOCK = 1 << 11,
    TRUNCATE = 1 << 14,
    IOCTL_DEV = 1 << 15,
    ALL_OF_ABI_2 = (1 << 14) - 1,
    READ = READ_FILE | READ_DIR,
    /* What makes sense for something that is not a folder. */
    OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV,
};
/* What a pipe takes in one piece (PIPE_BUF). */
enum { HEARD_BYTES_MAX = 4096 };
enum { FAILED = 125, NOT_EXECUTABLE = 126, NOT_FOUND = 127 };

struct attributes {
    uint64_t files, network, scoped;
};

struct rule {
    uint64_t allowed;
    int32_t folder;
} __attribute__((packed));

static int fail(const char *what, int code) {
    fprintf(stderr, "enter: %s: %s\n", what, strerror(errno));
    return code;
}

static int become(char **command) {
    execvp(command[0], command);
    return fail(command[0], errno == ENOENT ? NOT_FOUND : NOT_EXECUTABLE);
}

static int outside(int argc, char **argv) {
    int at = argc > 4 && strcmp(argv[4], "-i") == 0 ? 5 : 4;
    errno = EINVAL;
    if (at + 1 >= argc || strcmp(argv[at], "--") != 0) return fail("no command", FAILED);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return fail("prctl", FAILED);
    if (getppid() != atoi(argv[2])) return FAILED; /* it died just now */
    if (at == 5) {
        errno = 0;
        if (nice(19) == -1 && errno != 0) return fail("nice", FAILED);
        if (sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0}) != 0)
            return fail("sched_setscheduler", FAILED);
    }
    if (syscall(CLOSE_RANGE, atoi(argv[3]), ~0U, 0) != 0) return fail("close_range", FAILED);
    return become(argv + at + 1);
}

/* A ruleset that grants nothing yet; *handled is all that it can grant here. */
static int create(uint64_t *handled) {
    long abi = syscall(CREATE_RULESET, NULL, (size_t)0, GET_VERSION);
    if (abi < 2) { /* the first version has every rename into another folder fail */
        if (abi >= 0) errno = EOPNOTSUPP;
        return -1;
    }
    *handled = ALL_OF_ABI_2 | (abi >= 3 ? TRUNCATE : 0) | (abi >= 5 ? IOCTL_DEV : 0);
    /* Older kernels take what they don't know as long as it is nothing. */
    struct attributes all = {*handled, 0, abi >= 6 ? ABSTRACT_UNIX_SOCKET | SIGNAL : 0};
    return (int)syscall(CREATE_RULESET, &all, sizeof all, 0);
}

static int restrict_self(int ruleset) {
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
    return (int)syscall(RESTRICT_SELF, ruleset, 0);
}

static int allow(int ruleset, uint64_t rights, const char *path) {
    struct stat found;
    struct rule rule = {rights, open(path, O_PATH | O_CLOEXEC)};
    if (rule.folder < 0) return errno == ENOENT ? 0 : -1;
    int result = fstat(rule.folder, &found);
    if (result == 0) {
        if (!S_ISDIR(found.st_mode)) rule.allowed &= OF_FILES;
        result = (int)syscall(ADD_RULE, ruleset, PATH_BENEATH, &rule, 0);
    }
    close(rule.folder);
    return result;
}

static int limit(const char *pair) {
    char *end;
    unsigned long number = strtoul(pair, &end, 10);
    if (end == pair || *end != '=') {
        errno = EINVAL;
        return -1;
    }
    rlim_t value = strtoull(end + 1, NULL, 10);
    return setrlimit((int)number, &(struct rlimit){value, value});
}

static uint64_t rights_of(char option) {
    switch (option) {
    case 'n': return READ_DIR;
    case 'r': return READ;
    case 'x': return READ | EXECUTE;
    case 'w': return ~(uint64_t)(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV);
    case 'd': return READ | WRITE_FILE | TRUNCATE | IOCTL_DEV;
    default: return 0;
    }
}

static int holds(void) {
    uint64_t handled;
    int ruleset = create(&handled);
    if (ruleset < 0 || restrict_self(ruleset) != 0) return 0;
    return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC) < 0 && errno == EACCES;
}

/* Our words, as a descriptor tells them; NULL where nobody does. */
static char **heard(int fd, int *count) {
    static char text[HEARD_BYTES_MAX], *words[HEARD_BYTES_MAX + 2] = {"enter"};
    ssize_t size = read(fd, text, sizeof text);
    if (size < 0) return NULL;
    errno = EINVAL;
    if (size == 0 || text[size - 1] != 0 || close(fd) != 0) return NULL;
    *count = 1;
    for (char *at = text; at < text + size; at += strlen(at) + 1) words[(*count)++] = at;
    return words;
}

/* What an option says; 0 where it could be done. */
static int obey(int ruleset, uint64_t handled, const char *option, char *value) {
    char name = option[0] == '-' ? option[1] : 0;
    if (name == 'l') return limit(value);
    if (name == 'e') return putenv(value);
    uint64_t rights = rights_of(name) & handled;
    errno = EINVAL;
    return rights == 0 ? -1 : allow(ruleset, rights, value);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "-c") == 0) return holds() ? 0 : FAILED;
    if (argc > 1 && strcmp(argv[1], "-o") == 0) return outside(argc, argv);
    if (argc == 3 && strcmp(argv[1], "-f") == 0 && (argv = heard(atoi(argv[2]), &argc)) == NULL)
        return fail("no words", FAILED);
    uint64_t handled;
    int ruleset = create(&handled), at = 1;
    if (ruleset < 0) return fail("landlock", FAILED);
    for (; at + 1 < argc && strcmp(argv[at], "--") != 0; at += 2) {
        if (obey(ruleset, handled, argv[at], argv[at + 1]) != 0) return fail(argv[at + 1], FAILED);
    }
    if (at + 1 >= argc) {
        errno = EINVAL;
        return fail("no command", FAILED);
    }
    if (restrict_self(ruleset) != 0) return fail("landlock", FAILED);
    return become(argv + at + 1);
}
