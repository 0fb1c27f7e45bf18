/* A libcuda.so.1 that notes which process initialises it, and has no device. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int cuInit(unsigned int flags) {
  const char *path = getenv("CUINIT_LOG");
  FILE *log = path ? fopen(path, "a") : NULL;
  (void)flags;
  if (log) {
    fprintf(log, "%d\n", (int)getpid());
    fclose(log);
  }
  return 100; /* CUDA_ERROR_NO_DEVICE */
}

int cuDriverGetVersion(int *version) {
  *version = 13000;
  return 0;
}

int cuDeviceGetCount(int *count) {
  *count = 0;
  return 100;
}
