/* A stand-in for macOS: the functions that idle-sense calls there, with answers that a test records. It counts every reference
   and every handle, so that a test sees what is not given back, and what is given back twice. */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- CoreFoundation ---- */
enum { STRING = 11, WHOLE, REAL, BOOLEAN, DATA, ARRAY, DICTIONARY, OPAQUE };
typedef struct Object Object;
struct Object {
    int kind;
    long references;
    long count;
    union { char *bytes; int64_t whole; double real; } is;
    Object **items, **keys;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long live, mistakes;
static volatile int hanging;

static Object *make(int kind) {
    Object *object = calloc(1, sizeof *object);
    object->kind = kind;
    object->references = 1;
    pthread_mutex_lock(&lock);
    live++;
    pthread_mutex_unlock(&lock);
    return object;
}
const void *CFRetain(const void *reference) {
    Object *object = (Object *)reference;
    pthread_mutex_lock(&lock);
    object->references++;
    pthread_mutex_unlock(&lock);
    return object;
}
void CFRelease(const void *reference) {
    Object *object = (Object *)reference;
    if (!object) { mistakes++; return; } /* the real one ends the program */
    pthread_mutex_lock(&lock);
    long left = --object->references;
    if (left == 0) live--;
    if (left < 0) mistakes++;
    pthread_mutex_unlock(&lock);
    if (left != 0) return;
    for (long i = 0; i < object->count && object->items; i++) {
        CFRelease(object->items[i]);
        if (object->keys) CFRelease(object->keys[i]);
    }
    /* Its memory is kept: a second release is counted, and does no harm. */
}
static void *lent(Object *object) { return object ? (void *)CFRetain(object) : NULL; }

Object *fake_string(const char *text) {
    Object *object = make(STRING);
    object->is.bytes = strdup(text);
    object->count = (long)strlen(text);
    return object;
}
Object *fake_whole(int64_t value) { Object *o = make(WHOLE); o->is.whole = value; return o; }
Object *fake_real(double value) { Object *o = make(REAL); o->is.real = value; return o; }
Object *fake_boolean(int value) { Object *o = make(BOOLEAN); o->is.whole = value; return o; }
Object *fake_opaque(void) { return make(OPAQUE); }
Object *fake_data(const char *bytes, long count) {
    Object *object = make(DATA);
    object->is.bytes = malloc(count + 1);
    memcpy(object->is.bytes, bytes, count);
    object->count = count;
    return object;
}
Object *fake_array(void) { return make(ARRAY); }
Object *fake_dictionary(void) { return make(DICTIONARY); }
static void grow(Object *object) {
    object->items = realloc(object->items, (object->count + 1) * sizeof *object->items);
    if (object->kind == DICTIONARY) object->keys = realloc(object->keys, (object->count + 1) * sizeof *object->keys);
}
/* Both take over what they are given. */
void fake_append(Object *array, Object *item) { grow(array); array->items[array->count++] = item; }
void fake_put(Object *dictionary, Object *key, Object *item) {
    grow(dictionary);
    dictionary->keys[dictionary->count] = key;
    dictionary->items[dictionary->count++] = item;
}
long fake_live(void) { return live; }
long fake_mistakes(void) { return mistakes; }
void fake_hang(int on) { hanging = on; }
static void perhaps_hang(void) { while (hanging) usleep(1000); }

unsigned long CFGetTypeID(const void *o) { int kind = ((Object *)o)->kind; return kind == REAL ? WHOLE : (unsigned long)kind; }
unsigned long CFStringGetTypeID(void) { return STRING; }
unsigned long CFNumberGetTypeID(void) { return WHOLE; }
unsigned long CFBooleanGetTypeID(void) { return BOOLEAN; }
unsigned long CFDataGetTypeID(void) { return DATA; }
unsigned long CFArrayGetTypeID(void) { return ARRAY; }
unsigned long CFDictionaryGetTypeID(void) { return DICTIONARY; }
const void *CFStringCreateWithCString(const void *allocator, const char *text, uint32_t encoding) {
    return allocator || encoding != 0x08000100 ? NULL : fake_string(text);
}
long CFStringGetLength(const void *o) { return ((Object *)o)->count; }
long CFStringGetMaximumSizeForEncoding(long length, uint32_t encoding) { return encoding == 0x08000100 ? length * 3 : -1; }
unsigned char CFStringGetCString(const void *o, char *buffer, long room, uint32_t encoding) {
    const Object *object = o;
    if (encoding != 0x08000100 || object->count >= room) return 0;
    memcpy(buffer, object->is.bytes, object->count + 1);
    return 1;
}
unsigned char CFNumberIsFloatType(const void *o) { return ((Object *)o)->kind == REAL; }
unsigned char CFNumberGetValue(const void *o, long type, void *into) {
    const Object *object = o;
    if (type == 4) *(int64_t *)into = object->kind == REAL ? (int64_t)object->is.real : object->is.whole;
    else if (type == 6) *(double *)into = object->kind == REAL ? object->is.real : (double)object->is.whole;
    else mistakes++;
    return 1;
}
unsigned char CFBooleanGetValue(const void *o) { return ((Object *)o)->is.whole != 0; }
long CFDataGetLength(const void *o) { return ((Object *)o)->count; }
const unsigned char *CFDataGetBytePtr(const void *o) { return (unsigned char *)((Object *)o)->is.bytes; }
long CFArrayGetCount(const void *o) { return ((Object *)o)->count; }
const void *CFArrayGetValueAtIndex(const void *o, long i) { return ((Object *)o)->items[i]; }
long CFDictionaryGetCount(const void *o) { return ((Object *)o)->count; }
static int same(const Object *a, const Object *b) {
    if (a->kind != b->kind) return 0;
    return a->kind == STRING ? !strcmp(a->is.bytes, b->is.bytes) : a->is.whole == b->is.whole;
}
const void *CFDictionaryGetValue(const void *o, const void *key) {
    const Object *object = o;
    for (long i = 0; i < object->count; i++) if (same(object->keys[i], key)) return object->items[i];
    return NULL;
}
void CFDictionaryGetKeysAndValues(const void *o, const void **keys, const void **values) {
    const Object *object = o;
    for (long i = 0; i < object->count; i++) { keys[i] = object->keys[i]; values[i] = object->items[i]; }
}

/* ---- IOKit: entries are numbered from 1, iterators from 1000; each handle that is handed out is counted ---- */
#define MOST 64
static struct { char class[64]; uint32_t parent; Object *properties; int gone; } entries[MOST];
static uint32_t entry_count;
static struct { uint32_t found[MOST]; int count, at; } iterators[MOST];
static int iterator_count;
static long handles;

uint32_t fake_entry(const char *class, uint32_t parent, Object *properties) {
    strncpy(entries[entry_count].class, class, 63);
    entries[entry_count].parent = parent;
    entries[entry_count].properties = properties;
    return ++entry_count;
}
void fake_entry_is(uint32_t handle, Object *properties) { entries[handle - 1].properties = properties; }
void fake_entry_gone(uint32_t handle) { entries[handle - 1].gone = 1; }
long fake_handles(void) { return handles; }
void *IOServiceMatching(const char *class) { return fake_string(class); }
static int matches(uint32_t index, const Object *wanted) {
    return !entries[index].gone && !strcmp(entries[index].class, wanted->is.bytes);
}
uint32_t IOServiceGetMatchingService(uint32_t port, const void *matching) {
    uint32_t found = 0;
    perhaps_hang();
    for (uint32_t i = 0; i < entry_count && !found && !port; i++) if (matches(i, matching)) found = i + 1;
    CFRelease(matching);
    handles += found != 0;
    return found;
}
static int iterate(uint32_t *into) {
    *into = 1000 + (iterator_count % MOST);
    memset(&iterators[iterator_count++ % MOST], 0, sizeof iterators[0]);
    handles++;
    return *into - 1000;
}
int IOServiceGetMatchingServices(uint32_t port, const void *matching, uint32_t *into) {
    int slot = iterate(into);
    for (uint32_t i = 0; i < entry_count && !port; i++)
        if (matches(i, matching)) iterators[slot].found[iterators[slot].count++] = i + 1;
    CFRelease(matching);
    return 0;
}
int IORegistryEntryGetChildIterator(uint32_t handle, const char *plane, uint32_t *into) {
    if (strcmp(plane, "IOService")) return -1;
    int slot = iterate(into);
    for (uint32_t i = 0; i < entry_count; i++)
        if (entries[i].parent == handle && !entries[i].gone) iterators[slot].found[iterators[slot].count++] = i + 1;
    return 0;
}
uint32_t IOIteratorNext(uint32_t iterator) {
    int slot = (int)iterator - 1000;
    if (iterators[slot].at >= iterators[slot].count) return 0;
    handles++;
    return iterators[slot].found[iterators[slot].at++];
}
int IOObjectRelease(uint32_t handle) { if (!handle) mistakes++; handles--; return 0; }
uint32_t IORegistryGetRootEntry(uint32_t port) { (void)port; for (uint32_t i = 0; i < entry_count; i++) if (!strcmp(entries[i].class, "Root")) { handles++; return i + 1; } return 0; }
int IORegistryEntryGetRegistryEntryID(uint32_t handle, uint64_t *into) { *into = 0x100000000ull + handle; return entries[handle - 1].gone; }
const void *IORegistryEntryCreateCFProperty(uint32_t handle, const void *key, const void *allocator, uint32_t options) {
    perhaps_hang();
    if (!handle || handle > entry_count || allocator || options || entries[handle - 1].gone) return NULL;
    return lent((Object *)CFDictionaryGetValue(entries[handle - 1].properties, key));
}

static Object *assertions, *cpu_power, *sources, *providing;
static int assertions_status;
void fake_assertions(Object *dictionary, int status) { assertions = dictionary; assertions_status = status; }
void fake_cpu_power(Object *dictionary) { cpu_power = dictionary; }
void fake_sources(Object *array, Object *source) { sources = array; providing = source; }
int IOPMCopyAssertionsByProcess(const void **into) { *into = lent(assertions); return assertions_status; }
int IOPMCopyCPUPowerStatus(const void **into) { *into = lent(cpu_power); return cpu_power ? 0 : (int)0xe00002f0; }
const void *IOPSCopyPowerSourcesInfo(void) { return providing ? make(OPAQUE) : NULL; }
const void *IOPSCopyPowerSourcesList(const void *blob) { return blob ? lent(sources) : NULL; }
const void *IOPSGetPowerSourceDescription(const void *blob, const void *source) { return blob ? source : NULL; }
const void *IOPSGetProvidingPowerSourceType(const void *blob) { return blob ? providing : NULL; }

/* ---- CoreGraphics ---- */
typedef struct { double x, y, width, height; } Rect;
static double event_s;
static Object *session, *windows;
static struct { uint32_t number; Rect bounds; } displays[8];
static uint32_t display_count;
void fake_events(double seconds) { event_s = seconds; }
void fake_session(Object *dictionary) { session = dictionary; }
void fake_windows(Object *array) { windows = array; }
void fake_display(uint32_t number, double x, double y, double width, double height) {
    displays[display_count].number = number;
    displays[display_count++].bounds = (Rect){x, y, width, height};
}
double CGEventSourceSecondsSinceLastEventType(int32_t state, uint32_t type) {
    perhaps_hang();
    return state == 1 && type == 0xffffffffu ? event_s : -1;
}
const void *CGSessionCopyCurrentDictionary(void) { return lent(session); }
const void *CGWindowListCopyWindowInfo(uint32_t options, uint32_t window) { return options == 17 && !window ? lent(windows) : NULL; }
int32_t CGGetActiveDisplayList(uint32_t room, uint32_t *into, uint32_t *count) {
    for (*count = 0; *count < display_count && *count < room; ++*count) into[*count] = displays[*count].number;
    return 0;
}
Rect CGDisplayBounds(uint32_t number) {
    for (uint32_t i = 0; i < display_count; i++) if (displays[i].number == number) return displays[i].bounds;
    return (Rect){0, 0, 0, 0};
}

/* ---- CoreAudio and CoreMediaIO: properties by object, selector and scope ---- */
typedef struct { uint32_t selector, scope, element; } Address;
static struct { int media; uint32_t object; Address address; char bytes[256]; uint32_t size; Object *reference; } properties[256];
static int property_count;
void fake_property(int media, uint32_t object, uint32_t selector, uint32_t scope, const char *bytes, uint32_t size, Object *reference) {
    int at = property_count;
    for (int i = 0; i < property_count; i++)
        if (properties[i].media == media && properties[i].object == object && properties[i].address.selector == selector
            && properties[i].address.scope == scope) at = i;
    if (at == property_count) property_count++;
    properties[at].media = media;
    properties[at].object = object;
    properties[at].address = (Address){selector, scope, 0};
    properties[at].size = reference ? 8 : size;
    properties[at].reference = reference;
    if (bytes) memcpy(properties[at].bytes, bytes, size);
}
static int find(int media, uint32_t object, const Address *address) {
    for (int i = 0; i < property_count; i++)
        if (properties[i].media == media && properties[i].object == object && !memcmp(&properties[i].address, address, sizeof *address)) return i;
    return -1;
}
static int32_t get(int media, uint32_t object, const Address *address, uint32_t room, uint32_t *used, void *into) {
    int at = find(media, object, address);
    perhaps_hang();
    if (at < 0) return 0x77686f3f; /* 'who?' */
    *used = properties[at].size < room ? properties[at].size : room;
    if (properties[at].reference) { const void *reference = lent(properties[at].reference); memcpy(into, &reference, 8); }
    else memcpy(into, properties[at].bytes, *used);
    return 0;
}
unsigned char AudioObjectHasProperty(uint32_t object, const Address *address) { return find(0, object, address) >= 0; }
int32_t AudioObjectGetPropertyDataSize(uint32_t object, const Address *address, uint32_t n, const void *q, uint32_t *size) {
    int at = find(0, object, address);
    (void)n, (void)q;
    if (at < 0) return 0x77686f3f;
    *size = properties[at].size;
    return 0;
}
int32_t AudioObjectGetPropertyData(uint32_t object, const Address *address, uint32_t n, const void *q, uint32_t *size, void *into) {
    (void)n, (void)q;
    return get(0, object, address, *size, size, into);
}
int32_t CMIOObjectGetPropertyDataSize(uint32_t object, const Address *address, uint32_t n, const void *q, uint32_t *size) {
    int at = find(1, object, address);
    (void)n, (void)q;
    if (at < 0) return 0x77686f3f;
    *size = properties[at].size;
    return 0;
}
int32_t CMIOObjectGetPropertyData(uint32_t object, const Address *address, uint32_t n, const void *q, uint32_t room, uint32_t *used, void *into) {
    (void)n, (void)q;
    return get(1, object, address, room, used, into);
}

/* ---- libSystem ---- */
static struct { int pid, parent, visible; char info[136], brief[64], usage[296], name[64]; } processes[MOST];
static int process_count;
void fake_process(int pid, int parent, int visible, const char *info, const char *brief, const char *usage, const char *name) {
    int at = process_count;
    for (int i = 0; i < process_count; i++) if (processes[i].pid == pid) at = i;
    if (at == process_count) process_count++;
    processes[at].pid = pid;
    processes[at].parent = parent;
    processes[at].visible = visible;
    memcpy(processes[at].info, info, 136);
    memcpy(processes[at].brief, brief, 64);
    memcpy(processes[at].usage, usage, 296);
    strncpy(processes[at].name, name, 63);
}
static int process_at(int pid) { for (int i = 0; i < process_count; i++) if (processes[i].pid == pid) return i; return -1; }
void fake_process_gone(int pid) { int at = process_at(pid); if (at >= 0) processes[at].pid = -1; }
int proc_pidinfo(int pid, int flavor, uint64_t argument, void *into, int room) {
    int at = process_at(pid);
    if (at < 0 || argument != 1) return 0;
    if (flavor == 3 && room == 136 && processes[at].visible) return memcpy(into, processes[at].info, 136), 136;
    if (flavor == 13 && room == 64) return memcpy(into, processes[at].brief, 64), 64;
    return 0;
}
int proc_pid_rusage(int pid, int flavor, void *into) {
    int at = process_at(pid);
    if (at < 0 || flavor != 4 || !processes[at].visible) return -1;
    memcpy(into, processes[at].usage, 296);
    return 0;
}
int proc_listpids(uint32_t type, uint32_t parent, void *into, int room) {
    int count = 0;
    if (type != 6) return 0;
    for (int i = 0; i < process_count; i++)
        if (processes[i].pid > 0 && processes[i].parent == (int)parent && (count + 1) * 4 <= room) ((int *)into)[count++] = processes[i].pid;
    return count * 4;
}
int proc_name(int pid, void *into, uint32_t room) {
    int at = process_at(pid);
    if (at < 0 || room < 64) return 0;
    strcpy(into, processes[at].name);
    return (int)strlen(into);
}
int getsid(int pid) { return pid; }
uint32_t mach_host_self(void) { static int asked; if (asked++) mistakes++; return 0x1703; }
static uint32_t numer = 125, denom = 3;
int mach_timebase_info(uint32_t *into) { into[0] = numer; into[1] = denom; return 0; }
static uint32_t ticks[4];
static char memory[512];
void fake_ticks(uint32_t user, uint32_t system, uint32_t idle, uint32_t nice) { ticks[0] = user, ticks[1] = system, ticks[2] = idle, ticks[3] = nice; }
void fake_memory(const char *bytes, uint32_t size) { memcpy(memory, bytes, size); }
int host_statistics(uint32_t host, int flavor, void *into, uint32_t *count) {
    if (host != 0x1703 || flavor != 3 || *count != 4) return 4;
    memcpy(into, ticks, sizeof ticks);
    return 0;
}
int host_statistics64(uint32_t host, int flavor, void *into, uint32_t *count) {
    if (host != 0x1703 || flavor != 4) return 4;
    memcpy(into, memory, *count * 4);
    return 0;
}
static struct { char name[64]; char bytes[16]; size_t size; } settings[16];
static int setting_count;
void fake_setting(const char *name, const char *bytes, size_t size) {
    strncpy(settings[setting_count].name, name, 63);
    memcpy(settings[setting_count].bytes, bytes, size);
    settings[setting_count++].size = size;
}
int sysctlbyname(const char *name, void *into, size_t *size, void *from, size_t length) {
    (void)from, (void)length;
    for (int i = setting_count - 1; i >= 0; i--)
        if (!strcmp(settings[i].name, name) && settings[i].size <= *size) {
            memcpy(into, settings[i].bytes, settings[i].size);
            *size = settings[i].size;
            return 0;
        }
    return -1;
}
static char interfaces[4096];
static size_t interfaces_size;
void fake_interfaces(const char *bytes, size_t size) { memcpy(interfaces, bytes, size); interfaces_size = size; }
int sysctl(int *name, unsigned count, void *into, size_t *size, void *from, size_t length) {
    const int wanted[6] = {4, 17, 0, 0, 6, 0};
    (void)from, (void)length;
    if (count != 6 || memcmp(name, wanted, sizeof wanted)) return -1;
    if (into && *size < interfaces_size) return -1;
    if (into) memcpy(into, interfaces, interfaces_size);
    *size = interfaces_size;
    return 0;
}
static char logins[8][640];
static int login_count, login_at = -1;
void fake_login(const char *bytes) { memcpy(logins[login_count++], bytes, 640); }
void setutxent(void) { if (login_at != -1) mistakes++; login_at = 0; }
void endutxent(void) { login_at = -1; }
void *getutxent(void) { if (login_at < 0) mistakes++; return login_at < login_count ? logins[login_at++] : NULL; }
static uint64_t heat;
static int tokens, notify_status, current = 7;
/* With a status that is no success: notifyd was restarted, and knows no token that it handed out before. */
void fake_heat(uint64_t level, int status) { heat = level; notify_status = status; current += status != 0; }
int fake_tokens(void) { return tokens; }
uint32_t notify_register_check(const char *name, int *token) {
    if (strcmp(name, "com.apple.system.thermalpressurelevel")) return 1;
    *token = current;
    tokens++;
    return 0;
}
uint32_t notify_get_state(int token, uint64_t *state) { *state = heat; return token == current ? (uint32_t)notify_status : 2; }
uint32_t notify_cancel(int token) { if (token < 7) mistakes++; tokens--; return 0; }

/* ---- Network.framework and blocks ---- */
void *_NSConcreteGlobalBlock[32];
typedef struct Block { void *isa; int flags, reserved; void (*invoke)(struct Block *, void *); struct { unsigned long reserved, size; } *descriptor; } Block;
static Block *handler;
static int path[2], monitors, queue;
static void *tell(void *unused) { (void)unused; handler->invoke(handler, path); return NULL; }
void fake_path(int expensive, int constrained) {
    path[0] = expensive, path[1] = constrained;
    if (handler) { pthread_t thread; pthread_create(&thread, NULL, tell, NULL); pthread_join(thread, NULL); }
}
int fake_monitors(void) { return monitors; }
void *dispatch_get_global_queue(intptr_t identifier, uintptr_t flags) { return identifier || flags ? NULL : &queue; }
void *nw_path_monitor_create(void) { monitors++; return make(OPAQUE); }
void nw_path_monitor_set_queue(void *monitor, void *on) { if (!monitor || on != &queue) mistakes++; }
void nw_path_monitor_set_update_handler(void *monitor, Block *block) {
    (void)monitor;
    if (block->isa != _NSConcreteGlobalBlock || block->flags != 1 << 28 || block->descriptor->size != sizeof *block) mistakes++;
    handler = block;
}
void nw_path_monitor_start(void *monitor) { (void)monitor; pthread_t thread; pthread_create(&thread, NULL, tell, NULL); pthread_detach(thread); }
void nw_path_monitor_cancel(void *monitor) { (void)monitor; monitors--; }
bool nw_path_is_expensive(void *of) { return ((int *)of)[0]; }
bool nw_path_is_constrained(void *of) { return ((int *)of)[1]; }
void nw_release(void *object) { CFRelease(object); }
