/* Memory that runs out: for LD_PRELOAD. The MEMORY_NTH-th request for more than 64 KiB is refused,
   and told on the descriptor MEMORY_TOLD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define LARGE 65536

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static int refused(size_t size)
{
	static atomic_long seen;
	static atomic_long nth;
	if (size <= LARGE)
		return 0;
	if (!nth) {
		const char *text = getenv("MEMORY_NTH");
		nth = text ? atol(text) : -1;
	}
	if (++seen != nth)
		return 0;
	const char *told = getenv("MEMORY_TOLD");
	if (told && write(atoi(told), "!", 1) < 0)
		return 0;
	errno = ENOMEM;
	return 1;
}

void *malloc(size_t size)
{
	return refused(size) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	return refused(count * size) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
	return refused(size) ? NULL : __libc_realloc(old, size);
}
