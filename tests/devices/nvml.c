/* NVIDIA's management library as two GPUs would answer it: what test_nvml.py has the real Python binding call.
   Names, structures and codes: NVML API Reference Guide. The second GPU has the machine's memory and answers less. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, GPU_IS_LOST = 15 };

typedef struct { uint64_t total, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { char short_bus_id[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_t;

static int number(void *device) { return (int)(intptr_t)device - 1; }

int nvmlInitWithFlags(unsigned flags) { return SUCCESS; }
int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code == NOT_SUPPORTED ? "Not Supported" : "Unknown Error"; }

int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  if (index == 2) return GPU_IS_LOST;
  *device = (void *)(intptr_t)(index + 1);
  return SUCCESS;
}

int nvmlDeviceGetPciInfo_v3(void *device, pci_t *pci) {
  memset(pci, 0, sizeof *pci);
  strcpy(pci->bus_id, number(device) == 0 ? "00000000:17:00.0" : "0000000F:01:00.0");
  return SUCCESS;
}

int nvmlDeviceGetName(void *device, char *name, unsigned length) {
  snprintf(name, length, "%s", number(device) == 0 ? "NVIDIA H200" : "NVIDIA GB10");
  return SUCCESS;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
  snprintf(uuid, length, "GPU-00000000-0000-4000-8000-00000000000%d", number(device));
  return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
  if (number(device) == 1) return NOT_SUPPORTED;
  memory->total = 150754820096ULL;
  memory->used = 754820096ULL;
  memory->free = memory->total - memory->used;
  return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *device, utilization_t *rates) {
  if (number(device) == 1) return NOT_SUPPORTED;
  rates->gpu = 42;
  rates->memory = 7;
  return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
  *major = number(device) == 0 ? 9 : 12;
  *minor = number(device);
  return SUCCESS;
}
