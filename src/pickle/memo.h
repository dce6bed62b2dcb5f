/* What a pickler remembers: the numbers of objects, by address, and of texts and bytes, by hash. Whose memory an
 * address is, and whether two values of one hash are equal, is the caller's. */
#ifndef MFSTORE_PICKLE_MEMO_H
#define MFSTORE_PICKLE_MEMO_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uintptr_t key; /* 0: empty */
    uint32_t number;
} mf_object_slot;

/* All zero is an empty table. Free slots with free(). */
typedef struct {
    mf_object_slot *slots;
    size_t mask; /* slots - 1 */
    size_t used;
} mf_objects;

typedef struct {
    uintptr_t key; /* 0: empty */
    uint64_t hash;
    uint32_t number;
    uint32_t used_again;
} mf_value_slot;

typedef struct {
    mf_value_slot *slots;
    size_t mask;
    size_t used;
} mf_values;

/* Adds a key that is not 0, or gives one that is there another number. 1: it is new, 0: it was there, -1: no memory,
 * and the table is as it was. */
int mf_objects_add(mf_objects *table, uintptr_t key, uint32_t number);

/* Adds a key that is not in the table. -1: no memory, and the table is as it was. */
int mf_values_add(mf_values *table, uintptr_t key, uint64_t hash, uint32_t number);

/* Objects lie apart by multiples of 16 bytes. Those made one after the other are looked for one after the other, so
 * neighbours share cache lines; what meets goes on by all bits of the address, so that no distance is a bad one. */
static inline const mf_object_slot *mf_objects_probe(const mf_objects *table, uintptr_t key) {
    uintptr_t rest = key >> 4;
    size_t at = (size_t) rest & table->mask;
    while (table->slots[at].key != key && table->slots[at].key != 0) {
        rest >>= 5;
        at = (at * 5 + 1 + (size_t) rest) & table->mask;
    }
    return &table->slots[at];
}

/* The slot of a key, or NULL. */
static inline const mf_object_slot *mf_objects_find(const mf_objects *table, uintptr_t key) {
    const mf_object_slot *slot;
    if (table->slots == NULL)
        return NULL;
    slot = mf_objects_probe(table, key);
    return slot->key ? slot : NULL;
}

/* The first slot whose value has this hash, or NULL; then the next one after ``last``. */
static inline mf_value_slot *mf_values_next(const mf_values *table, uint64_t hash, const mf_value_slot *last) {
    size_t at;
    if (table->slots == NULL)
        return NULL;
    at = (last == NULL ? (size_t) (hash ^ (hash >> 32)) : (size_t) (last - table->slots) + 1) & table->mask;
    for (; table->slots[at].key != 0; at = (at + 1) & table->mask)
        if (table->slots[at].hash == hash)
            return &table->slots[at];
    return NULL;
}

#endif
