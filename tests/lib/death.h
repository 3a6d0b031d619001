/* Tests of what must stop the process: each such deed runs in a process of its own.
 *
 *     static const struct deed deeds[] = { { "lock order", take_in_wrong_order }, { 0 } };
 *     int main(int argc, char **argv) { death_main(argc, argv, deeds); return cmocka_run_group_tests(…); }
 *     … assert_true(death_of("lock order", "while holding LEAF"));
 */
#ifndef TESTS_LIB_DEATH_H
#define TESTS_LIB_DEATH_H

#include <stdbool.h>

struct deed {
    const char *name;
    void (*fn)(void);
};

/* In a process that was started for a deed: does it, and ends with 0 if it came back from it. */
void death_main(int argc, char **argv, const struct deed *deeds);
/* True when the deed ended by SIGABRT and wrote 'text'. */
bool death_of(const char *name, const char *text);

#endif
