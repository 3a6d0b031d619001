// The genuine npm xen-api client with disks: streams of known and of unknown length in, exports out, a disk moved.
// usage: node xen_api_disks.mjs URL PASSWORD VBD_UUID SR_UUID IMAGE FORMAT OUT    (the VBD's VM is halted)
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { createReadStream, createWriteStream, statSync } from 'node:fs'
import { pipeline } from 'node:stream/promises'

const require = createRequire(process.env.NODE_PACKAGES + '/')
const { createClient } = await import(pathToFileURL(require.resolve('xen-api')).href)
const [url, password, vbdUuid, srUuid, image, format, out] = process.argv.slice(2)

function check(condition, what) {
  if (!condition) {
    throw new Error('not true: ' + what)
  }
  console.log('ok ' + what)
}

const xapi = createClient({ url, auth: { user: 'root', password }, allowUnauthorized: true, watchEvents: true })
await xapi.connect()
await xapi.objectsFetched
const vbd = xapi.getObjectByUuid(vbdUuid)
const sr = xapi.getObjectByUuid(srUuid)
const sm = Object.values(xapi.objects.all).find(o => o.$type === 'SM' && o.type === sr.type)
check(sm.capabilities.includes('VDI_MIRROR') && sm.capabilities.includes('VDI_SNAPSHOT') && Array.isArray(sm.required_cluster_stack), 'the SR can migrate')

// First a request with an empty body is sent, then the stream; without a length it says 1 PiB and is cut at its end.
for (const length of [statSync(image).size, undefined]) {
  const stream = createReadStream(image)
  stream.length = length
  await xapi.putResource(stream, '/import_raw_vdi/', { query: { vdi: vbd.VDI, format }, task: await xapi.createTask('import') })
  check(true, `a ${format} stream of ${length ?? 'unknown length'} is imported`)
}

const old = vbd.VDI
const moved = await xapi.callAsync('VDI.pool_migrate', old, sr.$ref, {})
await xapi.barrier(vbd.$ref)
check(moved !== old && xapi.getObjectByUuid(vbdUuid).VDI === moved, 'the VBD has the moved disk')
check(xapi.getObject(moved, undefined)?.SR === sr.$ref && xapi.getObject(old, undefined) === undefined, 'the disk is in the other SR and no longer in its own')

const response = await xapi.getResource('/export_raw_vdi/', { query: { vdi: moved, format: 'raw' }, task: await xapi.createTask('export') })
check(Number(response.headers['content-length']) === Number(xapi.getObject(moved).virtual_size), 'the export says its length')
await pipeline(response.body ?? response, createWriteStream(out))
await xapi.disconnect()
process.exit(0)
