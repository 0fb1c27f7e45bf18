/* LD_PRELOAD. The time of day jumps by a day, back and forth; the clock that only counts goes on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

static long jump(void) {
  static int calls;
  return calls++ % 2 ? 86400 : -86400;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(clock, now);
  if (clock == CLOCK_REALTIME) now->tv_sec += jump();
  return failed;
}

time_t time(time_t *now) {
  struct timespec it;
  clock_gettime(CLOCK_REALTIME, &it);
  if (now) *now = it.tv_sec;
  return it.tv_sec;
}
