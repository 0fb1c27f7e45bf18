/* LD_PRELOAD. HANGS names a folder on a dead network mount: whoever asks for it waits for ever. ODD is how
   every file system answers: minus inodes (Ceph), or endless room (an object store). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int is_dead(const char *path) {
  const char *dead = getenv("HANGS");
  return dead && strncmp(path, dead, strlen(dead)) == 0;
}

#define ODDLY(room)                                             \
  do {                                                          \
    const char *odd = getenv("ODD");                            \
    if (odd && odd[0] == 'm') (room)->f_favail = (room)->f_ffree = -1; \
    if (odd && odd[0] == 'e') {                                 \
      (room)->f_blocks = (room)->f_bavail = 1ULL << 60;         \
      (room)->f_files = (room)->f_favail = 0;                   \
    }                                                           \
  } while (0)

int statvfs(const char *path, struct statvfs *room) {
  int (*real)(const char *, struct statvfs *) = (int (*)(const char *, struct statvfs *))dlsym(RTLD_NEXT, "statvfs");
  while (is_dead(path)) sleep(600);
  int failed = real(path, room);
  ODDLY(room);
  return failed;
}
int statvfs64(const char *path, struct statvfs64 *room) {
  int (*real)(const char *, struct statvfs64 *) = (int (*)(const char *, struct statvfs64 *))dlsym(RTLD_NEXT, "statvfs64");
  while (is_dead(path)) sleep(600);
  int failed = real(path, room);
  ODDLY(room);
  return failed;
}
