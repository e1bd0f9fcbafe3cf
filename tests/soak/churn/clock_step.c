/* A wall clock that is set while a process runs. Preloaded; the file named by CHURN_CLOCK holds the offset [ns].
 *
 * Only the wall clock is shifted. A deadline by it is given to the C library unshifted: the library waits by the clock
 * of the machine, which nobody has set. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t SECOND = 1000000000;
static volatile const int64_t *shift;
static int (*real_gettime)(clockid_t, struct timespec *);
static int (*real_timedwait)(sem_t *, const struct timespec *);

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("CHURN_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real_timedwait = dlsym(RTLD_NEXT, "sem_timedwait");
    if (file < 0) return;
    void *map = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (map != MAP_FAILED) shift = map;
}

static struct timespec shifted(const struct timespec *t, int64_t by) {
    int64_t ns = t->tv_nsec + by % SECOND;
    struct timespec result = {t->tv_sec + by / SECOND + (ns >= SECOND) - (ns < 0), (ns + SECOND) % SECOND};
    return result;
}

int clock_gettime(clockid_t id, struct timespec *t) {
    if (!real_gettime) start();
    int code = real_gettime(id, t);
    if (!code && shift && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) *t = shifted(t, *shift);
    return code;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    struct timespec machine = shifted(until, shift ? -*shift : 0);
    return real_timedwait(semaphore, &machine);
}
