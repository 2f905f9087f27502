import { setTimeout as sleep } from 'node:timers/promises'
import * as z from 'zod'
import { NestvmError } from '../../store/error.ts'
import type { Qmp } from './qmp.ts'

// A guest's disks go to another host while it runs as QEMU's "Live Block Device Operations" tells, "QMP invocation for live
// storage migration with drive-mirror and NBD": the QEMU there offers its own, which are empty, and the one here writes to
// them what is on its own, and from then on all that the guest writes, until the guest stands still.

/** A disk is known by the name of its block node, which is the same on both sides. */
type Nodes = readonly string[]

/** Where a QEMU finds the other side's disk. */
export type NbdServer = { type: 'unix'; path: string } | { type: 'inet'; host: string; port: string }

const prefix = 'move-'

/** Bytes that this QEMU's disks have for their guest. */
export async function diskSizes(qmp: Qmp, nodes: Nodes): Promise<number[]> {
  const found = z
    .array(z.object({ 'node-name': z.string().optional(), image: z.object({ 'virtual-size': z.number() }) }))
    .parse(await qmp.execute('query-named-block-nodes', { flat: true }))
  return nodes.map((node) => {
    const known = found.find((other) => other['node-name'] === node)
    if (!known) throw new NestvmError('MIGRATION_FAILED', `QEMU knows no disk ${node}`)
    return known.image['virtual-size']
  })
}

/** Offers the disks of a guest that is to come, at a unix socket of the machine that QEMU runs on. */
export async function offerDisks(qmp: Qmp, socket: string, nodes: Nodes): Promise<void> {
  await qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path: socket } }, 'max-connections': 0 })
  for (const node of nodes) {
    const name = { id: prefix + node, 'node-name': node, name: node }
    await qmp.execute('block-export-add', { type: 'nbd', ...name, writable: true })
  }
}

/** They are the guest's from then on. */
export async function withdrawDisks(qmp: Qmp): Promise<void> {
  await qmp.execute('nbd-server-stop')
}

/** Begins to write a disk to the one that the other side offers. */
export async function mirrorDisk(qmp: Qmp, node: string, server: NbdServer, bandwidth = 0): Promise<void> {
  const target = prefix + node
  await qmp.execute('blockdev-add', { driver: 'nbd', 'node-name': target, server, export: node })
  await qmp.execute('blockdev-mirror', {
    ...{ 'job-id': target, device: node, target, sync: 'full', speed: Math.round(bandwidth) },
    // A guest that writes faster than is sent is slowed down: at the end little is left.
    'copy-mode': 'write-blocking',
    'auto-dismiss': false,
  })
}

const jobsSchema = z.array(
  z.object({
    id: z.string(),
    status: z.string(),
    'current-progress': z.number(),
    'total-progress': z.number(),
    error: z.string().optional(),
  }),
)

async function jobs(qmp: Qmp): Promise<z.infer<typeof jobsSchema>> {
  return jobsSchema.parse(await qmp.execute('query-jobs')).filter(({ id }) => id.startsWith(prefix))
}

export interface MirrorState {
  /** All disks are alike on both sides but for what is being written; or what was begun has come to its end. */
  state: 'copying' | 'ready' | 'over'
  /** Bytes. */
  sent: number
  left: number
}

/** Throws `MIGRATION_FAILED` where a disk could not be sent. */
export async function mirrorState(qmp: Qmp): Promise<MirrorState> {
  const all = await jobs(qmp)
  const failed = all.find(({ status, error }) => status === 'concluded' && error !== undefined)
  if (failed) throw new NestvmError('MIGRATION_FAILED', `what it has on a disk could not be sent: ${failed.error}`)
  const sent = all.reduce((sum, job) => sum + job['current-progress'], 0)
  const whole = all.reduce((sum, job) => sum + job['total-progress'], 0)
  const are = (wanted: string) => all.every(({ status }) => status === wanted)
  return { state: are('concluded') ? 'over' : are('ready') ? 'ready' : 'copying', sent, left: whole - sent }
}

/** The guest stands still: what is left is written, and then the disks there have all of it. Throws as `mirrorState`. */
export async function endMirrors(qmp: Qmp): Promise<void> {
  await mirrorState(qmp)
  for (const { id } of await jobs(qmp)) await qmp.execute('block-job-cancel', { device: id, force: false })
}

/** Ends what a move that was broken off has begun; nothing where there was none. */
export async function dropMirrors(qmp: Qmp): Promise<void> {
  for (let tries = 500; tries > 0; tries--) {
    const all = await jobs(qmp)
    if (all.length === 0) break
    for (const { id, status } of all) {
      // Between two looks it may have come to its end.
      if (status === 'concluded') await qmp.execute('job-dismiss', { id }).catch(() => {})
      else await qmp.execute('block-job-cancel', { device: id, force: true }).catch(() => {})
    }
    await sleep(20)
  }
  const nodes = z
    .array(z.object({ 'node-name': z.string().optional() }))
    .parse(await qmp.execute('query-named-block-nodes', { flat: true }))
  for (const { 'node-name': node } of nodes) {
    if (node?.startsWith(prefix)) await qmp.execute('blockdev-del', { 'node-name': node })
  }
}
