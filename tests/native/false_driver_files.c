/* LD_PRELOAD. The driver's files are those below the folder $FALSE_FILES: /dev/nvidia0 is
   $FALSE_FILES/dev/nvidia0, and so are /proc/driver/nvidia*, /sys/module/nvidia*, the PCI bus and the list of
   /dev. /dev/kmsg gives one line of that file a read, and is refused where there is none. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int begins(const char *path, const char *with) { return strncmp(path, with, strlen(with)) == 0; }

static const char *led(const char *path, char *room, size_t size) {
  const char *files = getenv("FALSE_FILES");
  if (!files) return path;
  if (!begins(path, "/proc/driver/nvidia") && !begins(path, "/dev/nvidia") && !begins(path, "/sys/bus/pci") &&
      !begins(path, "/sys/module/nvidia") && strcmp(path, "/dev/kmsg") && strcmp(path, "/dev"))
    return path;
  snprintf(room, size, "%s%s", files, path);
  return room;
}

#define REAL(function) ((__typeof__(&function))dlsym(RTLD_NEXT, #function))
#define LED(path) char room_[4096]; path = led(path, room_, sizeof room_)

static int kernel_log(const char *path) {
  int ends[2];
  char record[4096];
  FILE *file = fopen(path, "r");
  if (!file || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0) {
    if (file) fclose(file);
    errno = EPERM;
    return -1;
  }
  while (fgets(record, sizeof record, file))
    if (write(ends[1], record, strlen(record)) < 0) break;
  fclose(file);
  return ends[0];
}

#define OPEN(function)                                                        \
  int function(const char *path, int flags, ...) {                            \
    va_list more;                                                             \
    va_start(more, flags);                                                    \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;   \
    va_end(more);                                                             \
    int log = getenv("FALSE_FILES") && strcmp(path, "/dev/kmsg") == 0;          \
    LED(path);                                                                \
    return log ? kernel_log(path) : REAL(function)(path, flags, mode);        \
  }
OPEN(open)
OPEN(open64)

DIR *opendir(const char *path) {
  LED(path);
  return REAL(opendir)(path);
}
int access(const char *path, int mode) {
  LED(path);
  return REAL(access)(path, mode);
}

/* stat() is a function of its own since glibc 2.33; before, and in programs built for then, it is __xstat(). */
#define STAT(function, type)                         \
  int function(const char *path, struct type *info) { \
    LED(path);                                       \
    return REAL(function)(path, info);               \
  }
#define XSTAT(function, type)                                       \
  int function(int version, const char *path, struct type *info);   \
  int function(int version, const char *path, struct type *info) {  \
    LED(path);                                                      \
    return REAL(function)(version, path, info);                     \
  }
STAT(stat, stat)
STAT(stat64, stat64)
STAT(lstat, stat)
STAT(lstat64, stat64)
XSTAT(__xstat, stat)
XSTAT(__xstat64, stat64)
XSTAT(__lxstat, stat)
XSTAT(__lxstat64, stat64)
