import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import * as z from 'zod'
import type { Bundle } from '../bundle/bundle.ts'
import { arches } from '../host/arch.ts'
import { parseCounterKhz } from '../host/clock.ts'
import { NestvmError } from '../store/error.ts'

/** What has to be the same where a snapshot is restored. Its fields are named in messages. */
export const worldSchema = z.object({
  /** Of the files and of the guests' way of waiting for a restore. */
  format: z.int(),
  arch: z.enum(arches),
  accelerator: z.string(),
  QEMU: z.string(),
  bundle: z.string(),
  /** What guests see of the host's processor: all of it under KVM, of an emulated one the rate of its clock. */
  CPU: z.string(),
})

export type World = z.infer<typeof worldSchema>

/** To be raised when older snapshots no longer do what `restore` expects of them. */
const format = 4

export async function worldOf({ digest, arch, tools }: Bundle, accel: string): Promise<World> {
  const [cpu, qemu] = await Promise.all([cpuSeen(accel), identityOf(tools.qemuArgv())])
  return { format, arch, accelerator: accel, QEMU: qemu, bundle: digest, CPU: cpu }
}

export function sameWorld(saved: World, now: World): boolean {
  return differences(saved, now).length === 0
}

function differences(saved: World, now: World) {
  return worldSchema.keyof().options.filter((field) => saved[field] !== now[field])
}

/** Throws `SNAPSHOT_MISMATCH`. */
export function checkWorld(saved: World, now: World, id: string): void {
  const other = differences(saved, now)
  if (other.length === 0) return
  throw new NestvmError('SNAPSHOT_MISMATCH', `the snapshot was made with another ${other.join(' and another ')}`, {
    hint: 'nestvm prune removes snapshots that nothing here can restore',
    details: { snapshot: id, fields: other, saved, now },
  })
}

async function cpuSeen(accel: string): Promise<string> {
  const cpuinfo = await readFile('/proc/cpuinfo', 'utf8')
  if (accel === 'tcg') return `${parseCounterKhz(cpuinfo) ?? 'unknown'} kHz`
  const [first = ''] = cpuinfo.split('\n\n')
  // What changes from moment to moment tells nothing.
  const lasting = first
    .split('\n')
    .filter((line) => !/^(cpu MHz|bogomips|processor|apicid|initial apicid|core id)/.test(line))
  const release = await readFile('/proc/sys/kernel/osrelease', 'utf8')
  return createHash('sha256')
    .update(`${lasting.join('\n')}\n${release}`)
    .digest('hex')
    .slice(0, 16)
}

/** The bundle's programs are known by its digest; the user's own by its file. */
async function identityOf(argv: readonly string[]): Promise<string> {
  const [program = ''] = argv
  if (argv.length > 1) return "the bundle's"
  const candidates = program.includes('/')
    ? [program]
    : (process.env.PATH ?? '').split(delimiter).map((dir) => join(dir, program))
  for (const path of candidates) {
    const stats = await stat(path).catch(() => undefined)
    if (stats?.isFile()) return `${path} ${stats.size} ${stats.mtimeMs}`
  }
  return program
}
