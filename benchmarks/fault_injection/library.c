/* Preloaded into a process (LD_PRELOAD): counts operations on files below a directory, and makes the k-th of a class fail.

   It does nothing until fault_arm(PATH) maps a file that holds `struct control` (library.py has the same structure). The
   mapping is shared, so that what was counted, and where the fault struck, can be read after the process was killed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum class { READ, OPEN, CREATE, WRITE, FSYNC, RENAME, MKDIR, REMOVE, CLASSES };

struct control {
  char directory[512]; /* operations elsewhere are not counted */
  int class;           /* of the operation that fails; -1 for none */
  int at;              /* it is the at-th of its class, from 1 */
  int error;           /* errno of the failure; 0 kills the process with SIGKILL instead */
  int stays;           /* 1: all that needs space fails from then on, as on a full disk */
  int after;           /* 1: the process is killed after the operation, not before it or amid it */
  int struck;          /* 1 as soon as the fault has struck */
  int seen[CLASSES];
  char path[512]; /* of the operation that failed */
};

static struct control *control;

int fault_arm(const char *path) {
  int file = open(path, O_RDWR);
  if (file < 0) return -1;
  void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (mapped == MAP_FAILED) return -1;
  control = mapped;
  return 0;
}

static int inside(const char *path) {
  size_t length = strlen(control->directory);
  return !strncmp(path, control->directory, length) && (path[length] == '/' || path[length] == 0);
}

static void name_of(int file, char *found) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, found, 511);
  found[length < 0 ? 0 : length] = 0;
}

static void absolute(int directory, const char *path, char *found) {
  char base[512];
  if (path[0] == '/') { snprintf(found, 512, "%s", path); return; }
  if (directory != AT_FDCWD) name_of(directory, base);
  else if (!getcwd(base, sizeof base)) base[0] = 0;
  snprintf(found, 512, "%.250s/%.250s", base, path);
}

/* Counts an operation; 1 where it is the one that fails. */
static int strikes(int class, const char *path) {
  if (!control || !inside(path)) return 0;
  int count = __atomic_add_fetch(&control->seen[class], 1, __ATOMIC_SEQ_CST);
  if (control->struck) {
    return control->stays && (class == CREATE || class == WRITE || class == MKDIR);
  }
  if (control->class != class || count != control->at) return 0;
  control->struck = 1;
  snprintf(control->path, sizeof control->path, "%s", path);
  if (!control->error && !control->after && class != WRITE) kill(getpid(), SIGKILL);
  return 1;
}

static int strikes_file(int class, int file) {
  char path[512];
  if (!control) return 0;
  name_of(file, path);
  return strikes(class, path);
}

static int strikes_path(int class, int directory, const char *name) {
  char path[512];
  if (!control) return 0;
  absolute(directory, name, path);
  return strikes(class, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
/* An operation that fails with an error, or that the process does not survive. */
#define OPERATION(hits, call)                                      \
  do {                                                             \
    int hit = (hits);                                              \
    if (hit && control->error) { errno = control->error; return -1; } \
    __typeof__(call) result = (call);                              \
    if (hit) kill(getpid(), SIGKILL);                              \
    return result;                                                 \
  } while (0)

static int kind_of(int flags) { return flags & O_CREAT ? CREATE : OPEN; }

#define OPENING(name)                                                                      \
  int name(const char *path, int flags, ...) {                                             \
    va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
    OPERATION(strikes_path(kind_of(flags), AT_FDCWD, path), REAL(name)(path, flags, mode)); \
  }
OPENING(open)
OPENING(open64)

#define OPENING_AT(name)                                                                   \
  int name(int at, const char *path, int flags, ...) {                                     \
    va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
    OPERATION(strikes_path(kind_of(flags), at, path), REAL(name)(at, path, flags, mode));  \
  }
OPENING_AT(openat)
OPENING_AT(openat64)

int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __open_2(const char *path, int flags) { OPERATION(strikes_path(kind_of(flags), AT_FDCWD, path), REAL(__open_2)(path, flags)); }
int __open64_2(const char *path, int flags) { OPERATION(strikes_path(kind_of(flags), AT_FDCWD, path), REAL(__open64_2)(path, flags)); }

ssize_t read(int file, void *to, size_t size) { OPERATION(strikes_file(READ, file), REAL(read)(file, to, size)); }
ssize_t pread(int file, void *to, size_t size, off_t at) { OPERATION(strikes_file(READ, file), REAL(pread)(file, to, size, at)); }
ssize_t pread64(int file, void *to, size_t size, off64_t at) { OPERATION(strikes_file(READ, file), REAL(pread64)(file, to, size, at)); }

/* Half of what is written reaches the file: the process is killed amid the write, or a full disk takes the first half. */
#define WRITING(hits, half, whole)                                \
  {                                                               \
    int before = control && control->struck;                      \
    int hit = (hits);                                             \
    if (!hit) return (whole);                                     \
    if (control->error && !(control->stays && !before)) { errno = control->error; return -1; } \
    if (!control->error && control->after) { ssize_t result = (whole); kill(getpid(), SIGKILL); return result; } \
    ssize_t result = (half);                                      \
    if (!control->error) kill(getpid(), SIGKILL);                 \
    if (!result) { errno = control->error; return -1; }           \
    return result;                                                \
  }
ssize_t write(int file, const void *from, size_t size)
WRITING(strikes_file(WRITE, file), size > 1 ? REAL(write)(file, from, size / 2) : 0, REAL(write)(file, from, size))
ssize_t pwrite(int file, const void *from, size_t size, off_t at)
WRITING(strikes_file(WRITE, file), size > 1 ? REAL(pwrite)(file, from, size / 2, at) : 0, REAL(pwrite)(file, from, size, at))
ssize_t pwrite64(int file, const void *from, size_t size, off64_t at)
WRITING(strikes_file(WRITE, file), size > 1 ? REAL(pwrite64)(file, from, size / 2, at) : 0, REAL(pwrite64)(file, from, size, at))
ssize_t writev(int file, const struct iovec *parts, int count)
WRITING(strikes_file(WRITE, file), count > 1 ? REAL(writev)(file, parts, count / 2) : 0, REAL(writev)(file, parts, count))

ssize_t sendfile(int to, int from, off_t *at, size_t size);
ssize_t sendfile64(int to, int from, off64_t *at, size_t size);
ssize_t sendfile(int to, int from, off_t *at, size_t size) { OPERATION(strikes_file(WRITE, to), REAL(sendfile)(to, from, at, size)); }
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) { OPERATION(strikes_file(WRITE, to), REAL(sendfile64)(to, from, at, size)); }
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags) {
  OPERATION(strikes_file(WRITE, to), REAL(copy_file_range)(from, a, to, b, size, flags));
}

int fsync(int file) { OPERATION(strikes_file(FSYNC, file), REAL(fsync)(file)); }
int fdatasync(int file) { OPERATION(strikes_file(FSYNC, file), REAL(fdatasync)(file)); }
int rename(const char *from, const char *to) { OPERATION(strikes_path(RENAME, AT_FDCWD, to), REAL(rename)(from, to)); }
int renameat(int a, const char *from, int b, const char *to) { OPERATION(strikes_path(RENAME, b, to), REAL(renameat)(a, from, b, to)); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
  OPERATION(strikes_path(RENAME, b, to), REAL(renameat2)(a, from, b, to, flags));
}
int link(const char *from, const char *to) { OPERATION(strikes_path(CREATE, AT_FDCWD, to), REAL(link)(from, to)); }
int mkdir(const char *path, mode_t mode) { OPERATION(strikes_path(MKDIR, AT_FDCWD, path), REAL(mkdir)(path, mode)); }
int mkdirat(int at, const char *path, mode_t mode) { OPERATION(strikes_path(MKDIR, at, path), REAL(mkdirat)(at, path, mode)); }
int unlink(const char *path) { OPERATION(strikes_path(REMOVE, AT_FDCWD, path), REAL(unlink)(path)); }
int unlinkat(int at, const char *path, int flags) { OPERATION(strikes_path(REMOVE, at, path), REAL(unlinkat)(at, path, flags)); }
int rmdir(const char *path) { OPERATION(strikes_path(REMOVE, AT_FDCWD, path), REAL(rmdir)(path)); }
