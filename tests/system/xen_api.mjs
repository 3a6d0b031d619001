// The genuine npm xen-api client against a pool: connect, watch, callAsync with progress, task destroyed.
// usage: node xen_api.mjs URL TRANSPORT PASSWORD VM_UUID HOST_UUID
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const require = createRequire(process.env.NODE_PACKAGES + '/')
const { createClient } = await import(pathToFileURL(require.resolve('xen-api')).href)
const [url, transport, password, vmUuid, hostUuid] = process.argv.slice(2)

function check(condition, what) {
  if (!condition) {
    throw new Error('not true: ' + what)
  }
  console.log('ok ' + what)
}

const xapi = createClient({ url, auth: { user: 'root', password }, allowUnauthorized: true, transport, watchEvents: true })
await xapi.connect()
await xapi.objectsFetched
check(xapi.pool !== undefined && xapi.pool.$type === 'pool', 'the pool is known')
const types = new Set(Object.values(xapi.objects.all).map(o => o.$type))
for (const type of ['pool', 'host', 'VM', 'SR', 'PIF', 'network', 'host_metrics']) {
  check(types.has(type), `objects of ${type} are watched`)
}

// barrier(): a change comes back as an event
await xapi.barrier()
check(true, 'barrier passes')

const vm = xapi.getObjectByUuid(vmUuid)
const host = xapi.getObjectByUuid(hostUuid)
check(vm.power_state === 'Running', 'the VM runs')

const seen = { operations: new Set(), residents: [], progress: [] }
xapi.objects.on('update', changed => {
  const record = changed[vm.$id]
  if (record !== undefined) {
    Object.values(record.current_operations).forEach(op => seen.operations.add(op))
    if (seen.residents.at(-1) !== record.resident_on) {
      seen.residents.push(record.resident_on)
    }
  }
  for (const object of Object.values(changed)) {
    if (object?.$type === 'task' && object.name_label.includes('pool_migrate')) {
      seen.progress.push(object.progress)
    }
  }
})

await xapi.callAsync('VM.pool_migrate', vm.$ref, host.$ref, { force: 'false', bandwidth: '8' }) // slow enough to be seen by polling clients
await xapi.barrier()
check(xapi.getObjectByUuid(vmUuid).resident_on === host.$ref, 'the VM lives on the other host')
check(seen.operations.has('pool_migrate'), 'current_operations showed pool_migrate')
check(seen.residents.filter(r => r === host.$ref).length === 1, 'resident_on changed once')
check(seen.progress.every((p, i) => i === 0 || p >= seen.progress[i - 1]), 'progress never went back')
const tasks = Object.values(await xapi.call('task.get_all_records'))
check(!tasks.some(t => t.name_label === 'Async.VM.pool_migrate'), 'the task is destroyed')

try {
  await xapi.call('VM.start', vm.$ref, false, false)
  check(false, 'starting a running VM fails')
} catch (error) {
  check(error.code === 'VM_BAD_POWER_STATE', 'error code ' + error.code)
  check(error.params[0] === vm.$ref && error.params[1] === 'halted' && error.params[2] === 'running', 'error parameters')
}

await vm.update_name_description?.('x')
await xapi.setField('VM', vm.$ref, 'name_description', 'set by xen-api')
await xapi.barrier()
check(xapi.getObjectByUuid(vmUuid).name_description === 'set by xen-api', 'setField arrives as an event')
await xapi.setFieldEntry('VM', vm.$ref, 'other_config', 'test:key', 'value')
await xapi.barrier()
check(xapi.getObjectByUuid(vmUuid).other_config['test:key'] === 'value', 'setFieldEntry arrives as an event')
await xapi.setFieldEntry('VM', vm.$ref, 'other_config', 'test:key', null)
await xapi.disconnect()
console.log('done')
process.exit(0)
