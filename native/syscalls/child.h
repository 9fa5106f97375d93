/* Runs function(argument) in a process that shares memory and descriptors with the caller, and waits for it. */
#ifndef PYENGINE_CHILD_H
#define PYENGINE_CHILD_H

#include <stddef.h>

/* 0, or minus errno if the process could not be made or was killed before function returned. The function must
 * not allocate, lock or return an error any other way than through its argument. */
int pe_in_child(void (*function)(void *), void *argument, size_t stack_size);

/* Joins each namespace in turn. 0 or minus errno. For use inside of pe_in_child only. */
int pe_join(const int *namespaces, int count);

#endif
