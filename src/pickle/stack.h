/* How far down a recursion may go in this thread. Stacks grow downwards wherever this is built. */
#ifndef MFSTORE_PICKLE_STACK_H
#define MFSTORE_PICKLE_STACK_H
#include <stdint.h>

/* The lowest address at which a further level may begin. Below it there is room for what a level calls: reducers, the
 * import of a module, the making of an error. 0 when the stack in use is not the thread's own (coroutines in C), of
 * which nothing is known. Found out once for each thread: of the main one that takes 0.1 ms. */
uintptr_t mf_stack_floor(void);

/* The address to compare with at first: that of mf_stack_floor once it is known for this thread (1 when nothing is),
 * else one that is reached by hardly any object, so that it need not be found out. */
uintptr_t mf_stack_first_look(void);

/* About where the stack is now: the frame of the caller, who asks at each level. */
static inline uintptr_t mf_stack_here(void) {
    return (uintptr_t) __builtin_frame_address(0);
}

#endif
