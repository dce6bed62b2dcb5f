#include "pickle/memo.h"

#include <stdlib.h>

/* Slots of a table that has just one entry, and how often there are so many more while it is small: 512 KiB. */
enum { FIRST = 32, SMALL = 32768 };

/* How many slots are to follow so many, or 0 where there is room: a third of them stays empty. */
static size_t wanted(size_t used, size_t mask, int any) {
    size_t slots = mask + 1;
    if (!any)
        return FIRST;
    if ((used + 1) * 3 <= slots * 2)
        return 0;
    return slots * (slots < SMALL ? 4 : 2);
}

static int grow_objects(mf_objects *table, size_t slots) {
    mf_objects grown = {calloc(slots, sizeof(mf_object_slot)), slots - 1, table->used};
    if (grown.slots == NULL)
        return -1;
    if (table->slots != NULL)
        for (size_t at = 0; at <= table->mask; at++)
            if (table->slots[at].key)
                *(mf_object_slot *) mf_objects_probe(&grown, table->slots[at].key) = table->slots[at];
    free(table->slots);
    *table = grown;
    return 0;
}

int mf_objects_add(mf_objects *table, uintptr_t key, uint32_t number) {
    size_t slots = wanted(table->used, table->mask, table->slots != NULL);
    mf_object_slot *slot;
    int added;
    if (slots && grow_objects(table, slots) < 0)
        return -1;
    slot = (mf_object_slot *) mf_objects_probe(table, key);
    added = slot->key == 0;
    slot->key = key;
    slot->number = number;
    table->used += (size_t) added;
    return added;
}

static void place(mf_values *table, mf_value_slot value) {
    size_t at = (size_t) (value.hash ^ (value.hash >> 32)) & table->mask;
    while (table->slots[at].key)
        at = (at + 1) & table->mask;
    table->slots[at] = value;
}

static int grow_values(mf_values *table, size_t slots) {
    mf_values grown = {calloc(slots, sizeof(mf_value_slot)), slots - 1, table->used};
    if (grown.slots == NULL)
        return -1;
    if (table->slots != NULL)
        for (size_t at = 0; at <= table->mask; at++)
            if (table->slots[at].key)
                place(&grown, table->slots[at]);
    free(table->slots);
    *table = grown;
    return 0;
}

int mf_values_add(mf_values *table, uintptr_t key, uint64_t hash, uint32_t number) {
    size_t slots = wanted(table->used, table->mask, table->slots != NULL);
    mf_value_slot value = {key, hash, number, 0};
    if (slots && grow_values(table, slots) < 0)
        return -1;
    place(table, value);
    table->used++;
    return 0;
}
