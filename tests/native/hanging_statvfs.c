/* Plays a dead network mount: whoever asks for the folder that HANGS names waits for ever. LD_PRELOAD. */
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

int statvfs(const char *path, struct statvfs *room) {
  int (*real)(const char *, struct statvfs *) = (int (*)(const char *, struct statvfs *))dlsym(RTLD_NEXT, "statvfs");
  while (is_dead(path)) sleep(600);
  return real(path, room);
}
int statvfs64(const char *path, struct statvfs64 *room) {
  int (*real)(const char *, struct statvfs64 *) = (int (*)(const char *, struct statvfs64 *))dlsym(RTLD_NEXT, "statvfs64");
  while (is_dead(path)) sleep(600);
  return real(path, room);
}
