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

/* Objects one after the other, which nobody looks for. All zero is none. Free slots with free(). */
typedef struct {
    mf_object_slot *slots;
    size_t used;
    size_t room;
} mf_notes;

/* A value, in the order in which they were added. */
typedef struct {
    uintptr_t key;
    uint64_t hash;
    uint32_t number;
    uint32_t used_again;
} mf_value;

/* All zero is an empty table. Values lie one after the other, and what finds them is eight bytes each: in the upper
 * half those of the hash, in the lower the place of the value, counted from 1. A new text looks at no more than that.
 * Free both with free(). */
typedef struct {
    mf_value *values;
    uint64_t *places;
    size_t mask;
    size_t room; /* of values */
    size_t used;
} mf_values;

/* Adds a key that is not 0, or gives one that is there another number. 1: it is new, 0: it was there, -1: no memory,
 * and the table is as it was. */
int mf_objects_add(mf_objects *table, uintptr_t key, uint32_t number);

/* Room for one more. -1: no memory, and the notes are as they were. */
int mf_notes_grow(mf_notes *notes);

/* Adds a key that is not in the table. -1: no memory, and the table is as it was. */
int mf_values_add(mf_values *table, uintptr_t key, uint64_t hash, uint32_t number);

/* Keeps the first `count` values, which the caller has moved there. */
void mf_values_cut(mf_values *table, size_t count);

static inline int mf_notes_add(mf_notes *notes, uintptr_t key, uint32_t number) {
    mf_object_slot slot = {key, number};
    if (notes->used == notes->room && mf_notes_grow(notes) < 0)
        return -1;
    notes->slots[notes->used++] = slot;
    return 0;
}

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

/* The first value of this hash, or NULL; *at is where to begin, and afterwards where to go on: mf_values_first(). */
static inline mf_value *mf_values_next(const mf_values *table, uint64_t hash, size_t *at) {
    uint64_t place;
    if (table->places == NULL)
        return NULL;
    while ((place = table->places[*at & table->mask]) != 0) {
        ++*at;
        if (place >> 32 == hash >> 32 && table->values[(uint32_t) place - 1].hash == hash)
            return &table->values[(uint32_t) place - 1];
    }
    return NULL;
}

static inline size_t mf_values_first(uint64_t hash) {
    return (size_t) (hash ^ (hash >> 32));
}

#endif
