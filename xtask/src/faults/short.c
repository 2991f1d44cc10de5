/* Reads and writes that do less than they were asked to: for LD_PRELOAD. Every SHORT_EVERY-th
   request of more than one byte is carried out for its first half only. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static size_t cut(size_t count)
{
	static atomic_long seen;
	static atomic_long every;
	if (!every) {
		const char *text = getenv("SHORT_EVERY");
		every = text ? atol(text) : 1;
	}
	return count > 1 && ++seen % every == 0 ? count / 2 : count;
}

#define REAL(name, ...) ((ssize_t(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

ssize_t pread64(int fd, void *buffer, size_t count, off_t offset)
{
	return REAL("pread64", int, void *, size_t, off_t)(fd, buffer, cut(count), offset);
}

ssize_t pwrite64(int fd, const void *buffer, size_t count, off_t offset)
{
	return REAL("pwrite64", int, const void *, size_t, off_t)(fd, buffer, cut(count), offset);
}

ssize_t read(int fd, void *buffer, size_t count)
{
	return REAL("read", int, void *, size_t)(fd, buffer, cut(count));
}

ssize_t write(int fd, const void *buffer, size_t count)
{
	return REAL("write", int, const void *, size_t)(fd, buffer, cut(count));
}

ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t count, unsigned flags)
{
	return REAL("copy_file_range", int, off_t *, int, off_t *, size_t, unsigned)(
		in, from, out, to, cut(count), flags);
}
