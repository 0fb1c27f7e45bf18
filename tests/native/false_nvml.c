/* A libnvidia-ml.so.1 for a node of two V100s, which FALSE_NVML can make sick:
   lost: GPU 1 is gone; lost-later: it goes once it has told its name; busy: GPU 0 has a process;
   degraded: GPU 0 is hot, on a narrow slow bus, with an NVLink down and memory errors (and, for want of a
   V100 that has them, remapped rows); exclusive, prohibited: compute modes, of both GPUs or of GPU 0;
   old: the driver lacks newer functions; hang: init never returns; crash: init dies; mismatch: the library
   is not the driver's. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_t;
typedef struct { char old_id[16]; unsigned domain, bus, device, id, subsystem_id; char bus_id[32]; } pci_t;

enum {
  OK = 0,
  INVALID_ARGUMENT = 2,
  NOT_SUPPORTED = 3,
  INSUFFICIENT_SIZE = 7,
  FUNCTION_NOT_FOUND = 13,
  GPU_LOST = 15,
  MISMATCH = 18
};
enum { MODE_DEFAULT = 0, MODE_PROHIBITED = 2, MODE_EXCLUSIVE_PROCESS = 3 };
enum { GPU_IDLE = 0x1, HW_SLOWDOWN = 0x8, HW_THERMAL = 0x40 };
enum { LINKS = 6, MOST_LINKS = 18 };

static int asked(const char *fault) {
  const char *chosen = getenv("FALSE_NVML");
  return chosen && strcmp(chosen, fault) == 0;
}

static int is(void *device, unsigned long index) { return device == (void *)(index + 1); }

static int degraded(void *device) { return is(device, 0) && asked("degraded"); }

static int lost(void *device) { return is(device, 1) && asked("lost-later"); }

static int told(void *device, unsigned *answer, unsigned value) {
  if (lost(device)) return GPU_LOST;
  *answer = value;
  return OK;
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
  if (lost(device)) return GPU_LOST;
  strncpy(text, "GPU-8a2f1c3e-1111-2222-3333-444455556660", size);
  text[39] = (char)('0' + (unsigned long)device);
  return OK;
}
int nvmlDeviceGetPciInfo_v3(void *device, pci_t *pci) {
  if (lost(device)) return GPU_LOST;
  if (asked("old")) return FUNCTION_NOT_FOUND;
  memset(pci, 0, sizeof *pci);
  pci->bus = is(device, 0) ? 0x3b : 0xd8;
  pci->id = 0x1db510de;
  strcpy(pci->old_id, is(device, 0) ? "0000:3B:00.0" : "0000:D8:00.0");
  strcpy(pci->bus_id, is(device, 0) ? "00000000:3B:00.0" : "00000000:D8:00.0");
  return OK;
}
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
  if (lost(device)) return GPU_LOST;
  memory->total = 32ULL << 30;
  memory->free = 31ULL << 30;
  memory->used = 1ULL << 30;
  return OK;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
  if (lost(device)) return GPU_LOST;
  *major = 7;
  *minor = 0;
  return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_t *processes) {
  if (lost(device)) return GPU_LOST;
  if (!asked("busy") || !is(device, 0)) {
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

int nvmlDeviceGetComputeMode(void *device, unsigned *mode) {
  if (asked("exclusive")) return told(device, mode, MODE_EXCLUSIVE_PROCESS);
  return told(device, mode, is(device, 0) && asked("prohibited") ? MODE_PROHIBITED : MODE_DEFAULT);
}
int nvmlDeviceGetPersistenceMode(void *device, unsigned *on) { return told(device, on, 1); }

int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *pending) {
  (void)now, (void)pending;
  return lost(device) ? GPU_LOST : asked("old") ? FUNCTION_NOT_FOUND : NOT_SUPPORTED;
}
int nvmlDeviceGetEccMode(void *device, unsigned *now, unsigned *pending) {
  *pending = 1;
  return told(device, now, 1);
}
int nvmlDeviceGetTotalEccErrors(void *device, int uncorrected, int aggregate, unsigned long long *count) {
  if (lost(device)) return GPU_LOST;
  /* Corrected ones, which are no fault, are many. */
  *count = !uncorrected ? 1000 : !degraded(device) ? 0 : aggregate ? 5 : 2;
  return OK;
}
int nvmlDeviceGetRemappedRows(void *device, unsigned *correctable, unsigned *uncorrectable, unsigned *pending,
                              unsigned *failed) {
  if (lost(device)) return GPU_LOST;
  if (asked("old")) return FUNCTION_NOT_FOUND;
  if (!degraded(device)) return NOT_SUPPORTED;
  *correctable = 0;
  *uncorrectable = 1;
  *pending = 1;
  *failed = 0;
  return OK;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) {
  if (lost(device)) return GPU_LOST;
  *reasons = degraded(device) ? HW_SLOWDOWN | HW_THERMAL : is(device, 0) && asked("busy") ? 0 : GPU_IDLE;
  return OK;
}
int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons) {
  return asked("old") ? FUNCTION_NOT_FOUND : nvmlDeviceGetCurrentClocksThrottleReasons(device, reasons);
}
int nvmlDeviceGetCurrPcieLinkGeneration(void *device, unsigned *generation) {
  return told(device, generation, degraded(device) ? 1 : 3);
}
int nvmlDeviceGetMaxPcieLinkGeneration(void *device, unsigned *generation) {
  return told(device, generation, 3);
}
int nvmlDeviceGetCurrPcieLinkWidth(void *device, unsigned *width) {
  return told(device, width, degraded(device) ? 4 : 16);
}
int nvmlDeviceGetMaxPcieLinkWidth(void *device, unsigned *width) { return told(device, width, 16); }

int nvmlDeviceGetNvLinkState(void *device, unsigned link, unsigned *active) {
  if (link >= LINKS) return link < MOST_LINKS ? NOT_SUPPORTED : INVALID_ARGUMENT;
  return told(device, active, !(degraded(device) && link == 3));
}
