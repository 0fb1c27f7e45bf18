/* A libnvidia-ml.so.1 for a node of two V100s, of which FALSE_NVML can make one sick:
   lost: GPU 1 is gone; busy: GPU 0 has a process; hang: init never returns; crash: init dies;
   mismatch: the library is not the driver's. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_t;

enum { OK = 0, UNINITIALIZED = 1, INSUFFICIENT_SIZE = 7, GPU_LOST = 15, MISMATCH = 18 };

static int asked(const char *fault) {
  const char *chosen = getenv("FALSE_NVML");
  return chosen && strcmp(chosen, fault) == 0;
}

int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  if (asked("hang")) sleep(600);
  if (asked("crash")) abort();
  return asked("mismatch") ? MISMATCH : OK;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return OK; }

const char *nvmlErrorString(int code) {
  return code == GPU_LOST ? "GPU is lost" : code == MISMATCH ? "Driver/library version mismatch" : "Unknown Error";
}
int nvmlSystemGetDriverVersion(char *text, unsigned size) {
  strncpy(text, "535.183.01", size);
  return OK;
}
int nvmlSystemGetCudaDriverVersion_v2(int *version) {
  *version = 12020;
  return OK;
}
int nvmlDeviceGetCount_v2(unsigned *count) {
  *count = 2;
  return OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  *device = (void *)(unsigned long)(index + 1);
  return index == 1 && asked("lost") ? GPU_LOST : OK;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size) {
  (void)device;
  strncpy(text, "Tesla V100-SXM2-32GB", size);
  return OK;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
  strncpy(text, "GPU-8a2f1c3e-1111-2222-3333-444455556660", size);
  text[39] = (char)('0' + (unsigned long)device);
  return OK;
}
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
  (void)device;
  memory->total = 32ULL << 30;
  memory->free = 31ULL << 30;
  memory->used = 1ULL << 30;
  return OK;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
  (void)device;
  *major = 7;
  *minor = 0;
  return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_t *processes) {
  if (!asked("busy") || device != (void *)1) {
    *count = 0;
    return OK;
  }
  if (*count < 1) {
    *count = 1;
    return INSUFFICIENT_SIZE;
  }
  *count = 1;
  processes[0].pid = 4242;
  processes[0].used = 20ULL << 30;
  return OK;
}
