#include "storage/tapd/vhd_private.h"

#include "rpc/base/check.h"

void vhd_park(struct vhd_jobs *list, struct vhd_job *job)
{
    CHECK(!job->parked);
    job->parked = true;
    job->next = NULL;
    *(list->last != NULL ? &list->last->next : &list->first) = job;
    list->last = job;
}

void vhd_wake(struct vhd_jobs *list, int error)
{
    struct vhd_job *job = list->first, *next;

    *list = (struct vhd_jobs) { NULL, NULL };
    for (; job != NULL; job = next) {
        next = job->next;
        job->parked = false;
        if (error != 0)
            job->error = error;
        vhd_job_go(job);
    }
}

bool vhd_wake_one(struct vhd_jobs *list)
{
    struct vhd_job *job = list->first;

    if (job == NULL)
        return false;
    list->first = job->next;
    if (list->first == NULL)
        list->last = NULL;
    job->parked = false;
    vhd_job_go(job);
    return true;
}
