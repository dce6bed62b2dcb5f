#include "pickle/memo.h"

#include <stdlib.h>
#include <string.h>

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

int mf_notes_grow(mf_notes *notes) {
    size_t room = notes->room ? notes->room * 2 : FIRST;
    mf_object_slot *slots = realloc(notes->slots, room * sizeof(mf_object_slot));
    if (slots == NULL)
        return -1;
    notes->slots = slots;
    notes->room = room;
    return 0;
}

static void place(mf_values *table, size_t index) {
    uint64_t hash = table->values[index].hash;
    size_t at = mf_values_first(hash);
    while (table->places[at & table->mask])
        at++;
    table->places[at & table->mask] = (hash >> 32 << 32) | (uint32_t) (index + 1);
}

static int grow_values(mf_values *table, size_t slots) {
    size_t room = slots / 3 * 2 + 1;
    uint64_t *places = calloc(slots, sizeof(uint64_t));
    mf_value *values = places == NULL ? NULL : realloc(table->values, room * sizeof(mf_value));
    if (values == NULL) {
        free(places);
        return -1;
    }
    free(table->places);
    table->values = values;
    table->places = places;
    table->mask = slots - 1;
    table->room = room;
    for (size_t index = 0; index < table->used; index++)
        place(table, index);
    return 0;
}

int mf_values_add(mf_values *table, uintptr_t key, uint64_t hash, uint32_t number) {
    mf_value value = {key, hash, number, 0};
    size_t slots = wanted(table->used, table->mask, table->places != NULL);
    if (slots && grow_values(table, slots) < 0)
        return -1;
    table->values[table->used] = value;
    place(table, table->used++);
    return 0;
}

void mf_values_cut(mf_values *table, size_t count) {
    table->used = count;
    if (table->places == NULL)
        return;
    memset(table->places, 0, (table->mask + 1) * sizeof(uint64_t));
    for (size_t index = 0; index < count; index++)
        place(table, index);
}
