#include "db/upgrade.h"

const struct upgrade_step upgrade_steps[] = {
    { 0 },
};
