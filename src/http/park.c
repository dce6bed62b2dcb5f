/* What a process does with all its engines at once: initialise libcurl, fork, exit. */
#include "http/worker.h"

#include <curl/curl.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct mf_engine *engines; /* those with threads */
static int ready;

static void park(void) {
    struct mf_engine *engine;
    int i;
    pthread_mutex_lock(&lock);
    for (engine = engines; engine; engine = engine->next)
        for (i = 0; i < engine->config.threads; i++)
            pthread_mutex_lock(&engine->workers[i].run);
}

static void unpark(void) {
    struct mf_engine *engine;
    int i;
    for (engine = engines; engine; engine = engine->next)
        for (i = 0; i < engine->config.threads; i++)
            pthread_mutex_unlock(&engine->workers[i].run);
    pthread_mutex_unlock(&lock);
}

/* The child closes its copies of our descriptors: else a server would see no end of the parent's connections while the
 * child lives. Nothing but close(): it does not touch what the parent's epoll looks for, nor TLS. */
static void forget(void) {
    struct mf_engine *engine;
    int i;
    for (engine = engines; engine; engine = engine->next)
        for (i = 0; i < engine->config.threads; i++) {
            struct mf_worker *worker = engine->workers + i;
            mf_dialer_abandon(worker->dialer);
            mf_poller_abandon(worker->poller);
            mf_wake_close(worker->wake);
        }
    engines = NULL;
    pthread_mutex_unlock(&lock);
}

/* exit() frees OpenSSL's tables while our threads may be in the midst of it. This runs before OpenSSL's own handler,
 * which OPENSSL_init_ssl installed earlier, and leaves them parked for good. A thread in a system call that does not
 * return (a dead network file system) shall not keep the process. */
static void park_for_good(void) {
    struct mf_engine *engine;
    int i, patience = 1000;
    while (pthread_mutex_trylock(&lock) != 0 && patience-- > 0)
        usleep(1000);
    for (engine = engines; engine; engine = engine->next)
        for (i = 0; i < engine->config.threads; i++)
            while (pthread_mutex_trylock(&engine->workers[i].run) != 0 && patience-- > 0)
                usleep(1000);
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int not_watched; /* errno */

static void watch_forks(void) {
    not_watched = pthread_atfork(park, unpark, forget);
}

/* Around a fork the threads are parked outside libcurl, OpenSSL and malloc, so that the child finds none of their locks
 * taken: it will use all three. They finish the round of their loop first, at most some milliseconds. A fork waits too
 * while somebody is here, from before the lock is first taken: a child that found it taken would wait for ever. */
int mf_hold_forks(void) {
    pthread_once(&once, watch_forks);
    if (!not_watched)
        pthread_mutex_lock(&lock);
    return not_watched;
}

void mf_let_forks(void) {
    pthread_mutex_unlock(&lock);
}

/* Not when the library is loaded: it costs milliseconds, and a process that never speaks S3 shall not pay them. */
int mf_global_init(void) {
    if (ready)
        return 0;
    if (!OPENSSL_init_ssl(0, NULL) || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return ENOMEM;
    ready = 1;
    atexit(park_for_good);
    return 0;
}

void mf_engine_listed(struct mf_engine *engine, int listed) {
    struct mf_engine **at;
    if (listed) {
        engine->next = engines;
        engines = engine;
    } else
        for (at = &engines; *at; at = &(*at)->next)
            if (*at == engine) {
                *at = engine->next;
                break;
            }
}
