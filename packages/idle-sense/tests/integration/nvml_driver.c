/* A driver's NVML for tests: answers what it was told to, fails with any code in any call, hangs, and counts what is held.

   Signatures and layouts as in nvml.h. Built without headers and without the C library's development files, which it needs not:
   what it calls is in the process that loads it. */

typedef unsigned int u32;
typedef unsigned long long u64;

extern int strcmp(const char *, const char *);
extern char *strncpy(char *, const char *, unsigned long);
extern int usleep(u32);

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };
enum { MOST = 64 };

struct utilization { u32 gpu, memory; };
struct memory { u64 total, free, used; };
struct process { u32 pid; u64 used; u32 gpu_instance, compute_instance; };
struct process_v1 { u32 pid; u64 used; };
struct sample { u32 pid; u64 timestamp; u32 sm, memory, encoder, decoder; };

static struct { char call[64]; int code; int count; } failures[MOST];
static char hanging[64];
static volatile int hangs;
static int opened, closed, started;
static char last_address[32];
static u32 gpu_percent, encoder_percent, decoder_percent, mig_mode;
static u64 used_bytes;
static struct process compute[MOST], graphics[MOST];
static u32 compute_count, graphics_count;
static struct sample work[MOST];
static u32 work_count;
static u64 asked_since;

/* What a test says. */

void fake_fail(const char *call, int code) {
  for (int i = 0; i < MOST; i++)
    if (!failures[i].call[0] || !strcmp(failures[i].call, call)) {
      strncpy(failures[i].call, call, sizeof failures[i].call - 1);
      failures[i].code = code;
      return;
    }
}
void fake_hang(const char *call) { strncpy(hanging, call, sizeof hanging - 1); hangs = 1; }
void fake_release(void) { hangs = 0; }
void fake_percent(u32 gpu, u32 encoder, u32 decoder) { gpu_percent = gpu; encoder_percent = encoder; decoder_percent = decoder; }
void fake_mig(u32 mode) { mig_mode = mode; }
void fake_used(u64 bytes) { used_bytes = bytes; }
void fake_forget(void) { compute_count = graphics_count = work_count = 0; }
void fake_compute(u32 pid, u64 bytes) { compute[compute_count++] = (struct process){pid, bytes, ~0u, ~0u}; }
void fake_graphics(u32 pid, u64 bytes) { graphics[graphics_count++] = (struct process){pid, bytes, ~0u, ~0u}; }
void fake_work(u32 pid, u64 timestamp, u32 sm, u32 encoder, u32 decoder) {
  work[work_count++] = (struct sample){pid, timestamp, sm, 0, encoder, decoder};
}
int fake_held(void) { return opened - closed; }
int fake_opened(void) { return opened; }
int fake_started(void) { return started; }
u64 fake_asked_since(void) { return asked_since; }
const char *fake_address(void) { return last_address; }

static int enter(const char *call) {
  while (hangs && !strcmp(hanging, call)) usleep(2000);
  for (int i = 0; i < MOST && failures[i].call[0]; i++)
    if (!strcmp(failures[i].call, call)) return failures[i].code;
  return SUCCESS;
}
#define ENTER(call)                                       \
  do {                                                    \
    int code = enter(call);                               \
    if (code) return code;                                \
    if (opened <= closed) return UNINITIALIZED;           \
  } while (0)

/* What NVML offers. */

const char *nvmlErrorString(int code) { return code == 18 ? "Driver/library version mismatch" : code == 15 ? "GPU is lost" : "some error"; }
int nvmlInit_v2(void) {
  int code = enter("nvmlInit_v2");
  if (!code) opened++;
  return code;
}
int nvmlShutdown(void) {
  int code = enter("nvmlShutdown");
  if (code) return code;
  if (opened <= closed) return UNINITIALIZED;
  closed++;
  return SUCCESS;
}
int nvmlSystemGetDriverVersion(char *version, u32 length) {
  ENTER("nvmlSystemGetDriverVersion");
  strncpy(version, "550.54.14", length);
  return SUCCESS;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *address, void **device) {
  ENTER("nvmlDeviceGetHandleByPciBusId_v2");
  strncpy(last_address, address, sizeof last_address - 1);
  started++;
  *device = (void *)0x7f0000000001;
  return SUCCESS;
}
int nvmlDeviceGetUtilizationRates(void *device, struct utilization *rates) {
  ENTER("nvmlDeviceGetUtilizationRates");
  if (device != (void *)0x7f0000000001) return INVALID_ARGUMENT;
  *rates = (struct utilization){gpu_percent, 7};
  return SUCCESS;
}
int nvmlDeviceGetEncoderUtilization(void *device, u32 *percent, u32 *period) {
  ENTER("nvmlDeviceGetEncoderUtilization");
  *percent = encoder_percent;
  *period = 167000;
  return SUCCESS;
}
int nvmlDeviceGetDecoderUtilization(void *device, u32 *percent, u32 *period) {
  ENTER("nvmlDeviceGetDecoderUtilization");
  *percent = decoder_percent;
  *period = 167000;
  return SUCCESS;
}
int nvmlDeviceGetMemoryInfo(void *device, struct memory *info) {
  ENTER("nvmlDeviceGetMemoryInfo");
  *info = (struct memory){8ull << 30, (8ull << 30) - used_bytes, used_bytes};
  return SUCCESS;
}
int nvmlDeviceGetMigMode(void *device, u32 *current, u32 *pending) {
  ENTER("nvmlDeviceGetMigMode");
  *current = *pending = mig_mode;
  return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, u32 *count) {
  ENTER("nvmlDeviceGetMaxMigDeviceCount");
  *count = 3;
  return SUCCESS;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, u32 index, void **instance) {
  ENTER("nvmlDeviceGetMigDeviceHandleByIndex");
  if (index == 1) return NOT_FOUND;
  *instance = (void *)(0x7f0000000100 + index);
  return SUCCESS;
}
static int is_instance(void *device) { return device == (void *)0x7f0000000100 || device == (void *)0x7f0000000102; }
static int list(const char *call, void *device, u32 *count, void *out, const struct process *from, u32 have, int first) {
  if (!is_instance(device)) ENTER(call);
  u32 room = *count;
  *count = have;
  if (room < have) return INSUFFICIENT_SIZE;
  for (u32 i = 0; i < have; i++)
    if (first) ((struct process_v1 *)out)[i] = (struct process_v1){from[i].pid, from[i].used};
    else ((struct process *)out)[i] = from[i];
  return SUCCESS;
}
#ifdef OLD_DRIVER
int nvmlDeviceGetComputeRunningProcesses(void *device, u32 *count, void *out) {
  return list("compute", device, count, out, compute, compute_count, 1);
}
int nvmlDeviceGetGraphicsRunningProcesses(void *device, u32 *count, void *out) {
  return list("graphics", device, count, out, graphics, graphics_count, 1);
}
#else
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, u32 *count, void *out) {
  return list("compute", device, count, out, compute, compute_count, 0);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, u32 *count, void *out) {
  return list("graphics", device, count, out, graphics, graphics_count, 0);
}
#endif
int nvmlDeviceGetProcessUtilization(void *device, struct sample *out, u32 *count, u64 since) {
  ENTER("nvmlDeviceGetProcessUtilization");
  asked_since = since;
  if (!work_count) return NOT_FOUND;
  u32 room = *count;
  *count = work_count;
  if (!out || room < work_count) return INSUFFICIENT_SIZE;
  for (u32 i = 0; i < work_count; i++) out[i] = work[i];
  return SUCCESS;
}
