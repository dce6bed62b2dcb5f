/* mf_google_stored on answers that are built here, with what they say known, on those cut off, and on anything;
 * mf_google_crc32c and mf_google_upload_head against slow ones. */
#include "http/google.h"
#include "fuzzing.h"

enum { MEMBERS = 12, TEXT = 64, DOCUMENT = MEMBERS * 4 * TEXT };

static const uint8_t *input;
static size_t input_n;

static unsigned byte(void) {
    if (!input_n)
        return 0;
    input_n--;
    return *input++;
}

static const char *one_of(const char *const *some, size_t n) {
    return some[byte() % n];
}
#define ONE_OF(some) one_of(some, sizeof some / sizeof *some)

static const char *const sums[] = {"yZRlqg==", "AAAAAA==", "", "yZRlqg="};

/* What is asked for: a whole CRC32C, or none. */
static const char *a_sum(void) {
    unsigned choice = byte() % 3;
    return choice < 2 ? sums[choice] : NULL;
}

/* ---- answers ---- */

static int stored(const char *data, size_t n, const char *crc, int status, struct mf_text *found) {
    uint8_t *copy = block((const uint8_t *) data, n);
    struct mf_xfer xfer = {0};
    int good;
    xfer.status = status;
    xfer.data = copy;
    xfer.data_n = n;
    good = mf_google_stored(&xfer, crc, found);
    if (good) {
        REQUIRE(status == 200 && found->n >= 1 && found->n <= 20);
        REQUIRE((const uint8_t *) found->at > copy && (const uint8_t *) found->at + found->n < copy + n);
        REQUIRE(found->at[-1] == '"' && found->at[found->n] == '"');
        for (size_t i = 0; i < found->n; i++)
            REQUIRE(found->at[i] >= '0' && found->at[i] <= '9');
        found->at = data + (found->at - (const char *) copy);
    }
    free(copy);
    return good;
}

static char document[DOCUMENT];
static size_t document_n;

static void say(const char *text) {
    size_t n = strlen(text);
    REQUIRE(document_n + n < sizeof document);
    memcpy(document + document_n, text, n);
    document_n += n;
}

static void blanks(void) {
    static const char *const some[] = {"", "", "", " ", "\n", "\t\r\n "};
    say(ONE_OF(some));
}

static const char *const names[] = {"generation", "generation", "crc32c", "crc32c", "name", "",
                                    "\\\"generation", "\\\\", "Generation", "generation2"};
static const char *const texts[] = {"1700000000000001", "7", "12345678901234567890", "123456789012345678901", "", "-1",
                                    "0x7", " 7", "a\\\"}", "\\\\", "{\\\"generation\\\":\\\"9\\\"}"};
static const char *const others[] = {"null", "-1.5e3", "true", "{}", "[]",
                                     "{\"generation\":\"9\",\"crc32c\":\"yZRlqg==\"}",
                                     "[[\"generation\",\"9\"],{\"a\":\"]}\"}]", "[\"\\\\\",\"\\\"}\"]"};

static void built(void) {
    const char *wanted = a_sum(), *generation = NULL, *crc = NULL;
    unsigned members = byte() % (MEMBERS + 1);
    int once = 1, expected;
    struct mf_text found;
    document_n = 0;
    blanks();
    say("{");
    for (unsigned i = 0; i < members; i++) {
        const char *name = ONE_OF(names), *value;
        blanks();
        say("\"");
        say(name);
        say("\"");
        blanks();
        say(":");
        blanks();
        if (byte() % 4 == 0) {
            say(ONE_OF(others));
        } else {
            value = strcmp(name, "crc32c") == 0 ? ONE_OF(sums) : ONE_OF(texts);
            say("\"");
            say(value);
            say("\"");
            if (strcmp(name, "generation") == 0) {
                once = once && !generation;
                generation = value;
            } else if (strcmp(name, "crc32c") == 0) {
                once = once && !crc;
                crc = value;
            }
        }
        blanks();
        if (i + 1 < members)
            say(",");
    }
    if (!members) { /* which Google never sends, and no reader here need know */
        say("}");
        REQUIRE(!stored(document, document_n, wanted, 200, &found));
        return;
    }
    /* A part of it says nothing. */
    REQUIRE(!stored(document, (byte() | (size_t) byte() << 8) % (document_n + 1), wanted, 200, &found));
    say("}");
    expected = once && generation && *generation && strlen(generation) <= 20 &&
               strspn(generation, "0123456789") == strlen(generation) &&
               (!wanted || (crc && strcmp(crc, wanted) == 0));
    REQUIRE(!stored(document, document_n, wanted, 201, &found));
    REQUIRE(stored(document, document_n, wanted, 200, &found) == expected);
    if (expected)
        REQUIRE(found.n == strlen(generation) && memcmp(found.at, generation, found.n) == 0);
    blanks();
    REQUIRE(stored(document, document_n, wanted, 200, &found) == expected);
}

/* ---- x-goog-hash ---- */

static int is_blank(char c) {
    return c == ' ' || c == '\t';
}

static void hash(void) {
    size_t n = input_n, from = 0;
    char *copy = (char *) block(input, n);
    struct mf_text found, expected = {NULL, 0};
    while (from < n && !expected.at) {
        size_t to = from, next;
        while (to < n && copy[to] != ',')
            to++;
        next = to + 1;
        while (from < to && is_blank(copy[from]))
            from++;
        while (to > from && (is_blank(copy[to - 1]) || copy[to - 1] == '\r'))
            to--;
        if (to - from > 7 && memcmp(copy + from, "crc32c=", 7) == 0)
            expected = (struct mf_text){copy + from + 7, to - from - 7};
        from = next;
    }
    REQUIRE(mf_google_crc32c(copy, n, &found) == (expected.at != NULL));
    if (expected.at)
        REQUIRE(found.at == expected.at && found.n == expected.n);
    free(copy);
}

/* ---- the head of an upload ---- */

static void head(void) {
    const char *crc = a_sum();
    size_t times = 1 + byte() % 4, type_n = byte() * (1 + byte() % 8u), n, key_n, quoted = 0, expected_n;
    char out[MF_GOOGLE_HEAD], *key, *name, *type, *expected;
    int good;
    n = input_n;
    key_n = times * n;
    good = key_n <= MF_GOOGLE_KEY;
    key = (char *) block(NULL, key_n);
    name = (char *) block(NULL, 2 * key_n + 1);
    type = (char *) block(NULL, type_n + 1);
    memset(type, 't', type_n);
    type[type_n] = 0;
    for (size_t i = 0; i < key_n; i++) {
        unsigned char c = input[i % n];
        key[i] = (char) c;
        good = good && c >= 32 && c < 127;
        if (c == '"' || c == '\\')
            name[quoted++] = '\\';
        name[quoted++] = (char) c;
    }
    name[quoted] = 0;
    expected = (char *) block(NULL, 2 * key_n + type_n + 512);
    expected_n = (size_t) snprintf(
        expected, 2 * key_n + type_n + 512,
        "--B\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{\"name\":\"%s%s%s\"}\r\n"
        "--B\r\nContent-Type: %s\r\n\r\n",
        good ? name : "", crc ? "\",\"crc32c\":\"" : "", crc ? crc : "", type);
    good = good && expected_n <= sizeof out;
    n = mf_google_upload_head(out, (struct mf_text){"B", 1}, (struct mf_text){key, key_n},
                              (struct mf_text){type, type_n}, crc);
    REQUIRE(n == (good ? expected_n : 0));
    if (good)
        REQUIRE(memcmp(out, expected, n) == 0);
    free(key);
    free(name);
    free(type);
    free(expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct mf_text found;
    const char *crc;
    input = data;
    input_n = size;
    switch (byte() % 4) {
    case 0:
        crc = a_sum();
        stored((const char *) input, input_n, crc, 200, &found);
        break;
    case 1:
        built();
        break;
    case 2:
        hash();
        break;
    default:
        head();
    }
    return 0;
}
