/* A disk that fails when it is told to, below a real program.

   LD_PRELOAD this; FAULTS names a file whose lines are "CALL ERRNO [FOLDER]", read anew at each call: while a
   line stands there, CALL (pwrite, sync, reserve or create) fails with ERRNO on files in FOLDER ("spool" when
   there is none). A failing pwrite writes half of its octets first, as a disk that fills up would. A sync fails
   by io_submit too: when its result is fetched. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/aio_abi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static int fault(const char *call, const char *path) {
    const char *name = getenv("FAULTS");
    FILE *file = name ? fopen(name, "re") : NULL;
    char line[256], what[32], folder[128], part[140];
    int number, found = 0;
    if (!file)
        return 0;
    while (!found && fgets(line, sizeof line, file)) {
        strcpy(folder, "spool");
        if (sscanf(line, "%31s %d %127s", what, &number, folder) < 2 || strcmp(what, call))
            continue;
        snprintf(part, sizeof part, "/%s/", folder);
        if (strstr(path, part))
            found = number;
    }
    fclose(file);
    return found;
}

static int fault_at(const char *call, int fd) {
    char link[64], path[PATH_MAX + 2];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX);
    if (size < 0)
        return 0;
    path[size] = '/'; /* a folder counts as in itself */
    path[size + 1] = 0;
    return fault(call, path);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    int number = fault_at("pwrite", fd);
    if (!number)
        return real(fd, data, size, offset);
    if (size > 1)
        real(fd, data, size / 2, offset);
    errno = number;
    return -1;
}

int fdatasync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    int number = fault_at("sync", fd);
    if (!number)
        return real(fd);
    errno = number;
    return -1;
}

int fsync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    int number = fault_at("sync", fd);
    if (!number)
        return real(fd);
    errno = number;
    return -1;
}

static int submitted = -1; /* the file that is being synced by io_submit: one at a time */

long syscall(long number, ...) {
    long (*real)(long, long, long, long, long, long, long) = dlsym(RTLD_NEXT, "syscall");
    long a[6], found;
    va_list more;
    va_start(more, number);
    for (int n = 0; n < 6; n++)
        a[n] = va_arg(more, long);
    va_end(more);
    if (number == SYS_io_submit)
        submitted = (*(struct iocb **)a[2])->aio_fildes;
    found = real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number == SYS_io_getevents && found > 0) {
        int wrong = fault_at("sync", submitted);
        if (wrong)
            ((struct io_event *)a[3])->res = -wrong;
    }
    return found;
}

int posix_fallocate64(int fd, off64_t offset, off64_t size) {
    int (*real)(int, off64_t, off64_t) = dlsym(RTLD_NEXT, "posix_fallocate64");
    int number = fault_at("reserve", fd);
    return number ? number : real(fd, offset, size);
}

int open64(const char *path, int flags, ...) {
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list more;
        va_start(more, flags);
        mode = va_arg(more, int);
        va_end(more);
        int number = fault("create", path);
        if (number) {
            errno = number;
            return -1;
        }
    }
    return real(path, flags, mode);
}
