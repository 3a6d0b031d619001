/* SQL against a file, behind the database's back: to make old, foreign and damaged files. */
#ifndef TESTS_LIB_SQL_H
#define TESTS_LIB_SQL_H

#include "rpc/base/arena.h"

void sql_run(const char *path, const char *sql); /* stops the test when it fails */
/* The rows of a query, columns joined by '|', rows by '\n'. */
const char *sql_ask(struct arena *, const char *path, const char *sql);

#endif
