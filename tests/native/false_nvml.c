/* The libnvidia-ml.so.1 of the node that the file $FALSE_NODE describes, in lines of `GPU KEY VALUE` where
   `*` is every GPU and a later line wins. A key that is a function's name holds what it does instead of
   answering: an error's number, `hang` or `crash`. What the file does not tell is not supported.
   tests/false_node.py writes that file. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_t;
typedef struct { char old_id[16]; unsigned domain, bus, device, id, subsystem_id; char bus_id[32]; } pci_t;
typedef struct {
  unsigned version;
  unsigned char cluster[16];
  unsigned status, clique, state, health;
} fabric_t;
typedef struct { int gpu; char key[64], value[512]; } line_t;

enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };
enum { MOST_LINES = 4096, MOST_LINKS = 18, MOST_MIG_DEVICES = 7, EVERY_GPU = -1 };

static line_t lines[MOST_LINES];
static int known;

__attribute__((constructor)) static void read_node(void) {
  const char *path = getenv("FALSE_NODE");
  FILE *file = path ? fopen(path, "r") : NULL;
  char text[640], gpu[16];
  while (file && known < MOST_LINES && fgets(text, sizeof text, file)) {
    line_t *line = &lines[known];
    if (sscanf(text, "%15s %63s %511[^\n]", gpu, line->key, line->value) < 2) continue;
    line->gpu = gpu[0] == '*' ? EVERY_GPU : atoi(gpu);
    known++;
  }
  if (file) fclose(file);
}

static const char *told(int gpu, const char *key) {
  for (int at = known - 1; at >= 0; at--)
    if ((lines[at].gpu == gpu || lines[at].gpu == EVERY_GPU) && strcmp(lines[at].key, key) == 0)
      return lines[at].value;
  return NULL;
}

/* A MIG device's handle holds its GPU's in the lower byte. */
static int gpu_of(void *device) { return (int)((unsigned long)device & 0xff) - 1; }

static int fault(int gpu, const char *function) {
  const char *delay = told(gpu, "delay_us"), *instead = told(gpu, function);
  if (delay) usleep((unsigned)atoi(delay));
  if (!instead) return OK;
  while (strcmp(instead, "hang") == 0) sleep(600);
  if (strcmp(instead, "crash") == 0) raise(SIGSEGV);
  return atoi(instead);
}

#define UNLESS_FAULTY(gpu)                       \
  do {                                           \
    int faulty = fault(gpu, __func__);           \
    if (faulty) return faulty;                   \
  } while (0)

/* A function that gives one text, or one number, of a GPU. */
#define TEXT(function, key)                                        \
  int function(void *device, char *text, unsigned size) {          \
    UNLESS_FAULTY(gpu_of(device));                                 \
    const char *value = told(gpu_of(device), key);                 \
    if (!value) return NOT_SUPPORTED;                              \
    snprintf(text, size, "%s", value);                             \
    return OK;                                                     \
  }
#define NUMBER(function, type, key)                                \
  int function(void *device, type *number) {                       \
    UNLESS_FAULTY(gpu_of(device));                                 \
    const char *value = told(gpu_of(device), key);                 \
    if (!value) return NOT_SUPPORTED;                              \
    *number = (type)strtoull(value, NULL, 0);                      \
    return OK;                                                     \
  }
/* The same of a mode that has a present and a pending value. */
#define MODE(function, key)                                        \
  int function(void *device, unsigned *now, unsigned *pending) {   \
    UNLESS_FAULTY(gpu_of(device));                                 \
    const char *value = told(gpu_of(device), key);                 \
    if (!value) return NOT_SUPPORTED;                              \
    *now = *pending = (unsigned)atoi(value);                       \
    return OK;                                                     \
  }

int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  UNLESS_FAULTY(EVERY_GPU);
  return OK;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) {
  UNLESS_FAULTY(EVERY_GPU);
  return OK;
}

int nvmlSystemGetDriverVersion(char *text, unsigned size) {
  UNLESS_FAULTY(EVERY_GPU);
  snprintf(text, size, "%s", told(EVERY_GPU, "driver"));
  return OK;
}
int nvmlSystemGetCudaDriverVersion_v2(int *version) {
  UNLESS_FAULTY(EVERY_GPU);
  *version = atoi(told(EVERY_GPU, "cuda"));
  return OK;
}
int nvmlDeviceGetCount_v2(unsigned *count) {
  UNLESS_FAULTY(EVERY_GPU);
  *count = (unsigned)atoi(told(EVERY_GPU, "count"));
  return OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  UNLESS_FAULTY((int)index);
  *device = (void *)(unsigned long)(index + 1);
  return OK;
}

TEXT(nvmlDeviceGetName, "name")
NUMBER(nvmlDeviceGetComputeMode, unsigned, "compute_mode")
NUMBER(nvmlDeviceGetPersistenceMode, unsigned, "persistence")
NUMBER(nvmlDeviceGetRetiredPagesPendingStatus, unsigned, "retired_pages_pending")
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, "throttle")
NUMBER(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, "throttle")
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, "pcie_generation")
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, "pcie_generation_max")
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, unsigned, "pcie_width")
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, unsigned, "pcie_width_max")
MODE(nvmlDeviceGetEccMode, "ecc")
MODE(nvmlDeviceGetMigMode, "mig")

int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) {
  UNLESS_FAULTY(gpu_of(device));
  *count = told(gpu_of(device), "mig") ? MOST_MIG_DEVICES : 0;
  return OK;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **part) {
  char key[32];
  UNLESS_FAULTY(gpu_of(device));
  snprintf(key, sizeof key, "mig_uuid_%u", index);
  if (!told(gpu_of(device), key)) return NOT_FOUND;
  *part = (void *)((unsigned long)device | (unsigned long)(index + 1) << 8);
  return OK;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
  char key[32] = "uuid";
  unsigned long part = (unsigned long)device >> 8;
  UNLESS_FAULTY(gpu_of(device));
  if (part) snprintf(key, sizeof key, "mig_uuid_%lu", part - 1);
  snprintf(text, size, "%s", told(gpu_of(device), key));
  return OK;
}

int nvmlDeviceGetPciInfo_v3(void *device, pci_t *pci) {
  UNLESS_FAULTY(gpu_of(device));
  memset(pci, 0, sizeof *pci);
  const char *bus_id = told(gpu_of(device), "bus_id"); /* 00000000:3B:00.0, and 0000:3B:00.0 as it was */
  sscanf(bus_id, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device);
  snprintf(pci->bus_id, sizeof pci->bus_id, "%s", bus_id);
  snprintf(pci->old_id, sizeof pci->old_id, "%s", bus_id + 4);
  pci->id = (unsigned)strtoul(told(gpu_of(device), "pci_device_id"), NULL, 0);
  return OK;
}
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
  UNLESS_FAULTY(gpu_of(device));
  memory->total = strtoull(told(gpu_of(device), "memory_mib"), NULL, 0) << 20;
  memory->used = strtoull(told(gpu_of(device), "used_mib"), NULL, 0) << 20;
  memory->free = memory->total - memory->used;
  return OK;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
  UNLESS_FAULTY(gpu_of(device));
  return sscanf(told(gpu_of(device), "capability"), "%d.%d", major, minor) == 2 ? OK : NOT_SUPPORTED;
}

static int processes_of(int gpu, unsigned *count, process_t *processes) {
  unsigned room = *count, pid, mib, length;
  const char *rest = told(gpu, "processes"); /* `PID MIB PID MIB`; no MIB: the driver does not tell */
  for (*count = 0; rest && sscanf(rest, "%u %u%n", &pid, &mib, &length) == 2; rest += length, ++*count)
    if (*count < room) {
      unsigned long long bytes = mib ? (unsigned long long)mib << 20 : ~0ULL;
      processes[*count] = (process_t){pid, bytes, ~0U, ~0U};
    }
  return *count > room ? INSUFFICIENT_SIZE : OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_t *processes) {
  UNLESS_FAULTY(gpu_of(device));
  return processes_of(gpu_of(device), count, processes);
}
int nvmlDeviceGetComputeRunningProcesses_v2(void *device, unsigned *count, process_t *processes) {
  UNLESS_FAULTY(gpu_of(device));
  return processes_of(gpu_of(device), count, processes);
}

int nvmlDeviceGetTotalEccErrors(void *device, int uncorrected, int aggregate, unsigned long long *count) {
  UNLESS_FAULTY(gpu_of(device));
  const char *value = told(gpu_of(device), aggregate ? "ecc_errors_aggregate" : "ecc_errors_volatile");
  if (!value) return NOT_SUPPORTED;
  *count = uncorrected ? strtoull(value, NULL, 0) : 1000; /* corrected ones are many, and no fault */
  return OK;
}
int nvmlDeviceGetRemappedRows(void *device, unsigned *correctable, unsigned *uncorrectable, unsigned *pending,
                              unsigned *failed) {
  UNLESS_FAULTY(gpu_of(device));
  const char *rows = told(gpu_of(device), "remapped_rows");
  if (!rows) return NOT_SUPPORTED;
  return sscanf(rows, "%u %u %u %u", correctable, uncorrectable, pending, failed) == 4 ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetNvLinkState(void *device, unsigned link, unsigned *active) {
  UNLESS_FAULTY(gpu_of(device));
  const char *links = told(gpu_of(device), "nvlinks"); /* 111011: the fourth is down */
  if (link >= MOST_LINKS) return INVALID_ARGUMENT;
  if (!links || link >= strlen(links)) return NOT_SUPPORTED;
  *active = links[link] == '1';
  return OK;
}
int nvmlDeviceGetGpuFabricInfoV(void *device, fabric_t *fabric) {
  UNLESS_FAULTY(gpu_of(device));
  const char *value = told(gpu_of(device), "fabric"); /* state and status */
  if (!value) return NOT_SUPPORTED;
  return sscanf(value, "%u %u", &fabric->state, &fabric->status) == 2 ? OK : NOT_SUPPORTED;
}

#undef UNLESS_FAULTY
const char *nvmlErrorString(int code) {
  (void)code;
  return "an error that these bindings do not know";
}
