import { layerMount } from '../bundle/guest/scripts.ts'
import type { BindMount } from '../container/config.ts'
import { spawnInContainer, startArgv, startContainer } from '../container/machine.ts'
import { commandOf, ociProcess, type ProcessDefaults, type ProcessRequest } from '../container/process.ts'
import type { Machine, Process, SpawnOptions } from '../machine/machine.ts'
import { NestvmError } from '../store/error.ts'
import type { Context } from './context.ts'
import { runDetached } from './output.ts'
import type { GuestRecord } from './record.ts'
import { mountPoint } from './volume.ts'

/** What is to run in a guest: in its container, where it has one. */
export interface Program extends Omit<ProcessRequest, 'tty'> {
  argv: readonly string[]
}

type StreamOptions = Pick<SpawnOptions, 'tty' | 'noInput' | 'signal'>

/** Runs a further command in a guest: in its container, or in the guest itself where it has none or `vm` says so. */
export async function spawnInside(
  context: Context,
  record: GuestRecord,
  vm: boolean,
  program: Program,
  streams: StreamOptions,
): Promise<Process> {
  const guest = await context.guest(record)
  const defaults = vm ? undefined : processDefaults(record)
  if (!defaults) return spawnInGuest(guest, program, streams)
  const { argv, ...rest } = program
  return spawnInContainer(guest, defaults, argv, { ...streams, ...rest })
}

/** Runs the command that a guest was started for; with a container its first process. */
export async function runFirst(
  guest: Machine,
  record: GuestRecord,
  program: Program,
  streams: StreamOptions,
): Promise<Process> {
  const config = containerConfig(record, program, streams)
  return config ? startContainer(guest, config, streams) : spawnInGuest(guest, program, streams)
}

/** The same with nobody watching; see `runDetached`. */
export async function runFirstDetached(guest: Machine, record: GuestRecord, program: Program): Promise<void> {
  const config = containerConfig(record, program, {})
  if (config) return runDetached(guest, startArgv(config))
  const { env, cwd } = program
  return runDetached(guest, asUser(program), { env, cwd })
}

/** Checks, before anything starts, what `runFirst` would refuse. */
export function checkFirst(container: NonNullable<GuestRecord['container']>, program: Program): void {
  ociProcess(commandOf(container.config, program.argv), program, { ...container, hostname: '' })
}

function containerConfig(record: GuestRecord, program: Program, { tty }: StreamOptions) {
  const defaults = processDefaults(record)
  if (!defaults || !record.container) return undefined
  const { argv, ...rest } = program
  const command = commandOf(record.container.config, argv)
  const { layer } = defaults
  const volumes = record.volumes.map(({ path, readOnly }, index): BindMount => {
    return { source: mountPoint(record, index), destination: path, readOnly }
  })
  const binds = [...(layer ? [{ source: layer, destination: layer, readOnly: true }] : []), ...volumes]
  return {
    process: ociProcess(command, { ...rest, tty }, defaults),
    hostname: defaults.hostname,
    privileged: defaults.privileged,
    nested: record.nested,
    binds,
    healthcheck: record.container.config.healthcheck,
    defaults,
  }
}

function processDefaults({ container, path, nested }: GuestRecord): ProcessDefaults | undefined {
  return container && { ...container, hostname: hostName(path), layer: nested ? layerMount : undefined }
}

function spawnInGuest(guest: Machine, program: Program, streams: StreamOptions): Promise<Process> {
  const { env, cwd } = program
  return guest.spawn(asUser(program), { ...streams, env, cwd })
}

/** Guests are named by their path. */
export function hostName(path: string): string {
  return path.replaceAll('/', '-').slice(0, 63)
}

/** In the guest's own system a user is one of its /etc/passwd. */
function asUser({ argv, user }: Program): readonly string[] {
  if (user === undefined || user === 'root' || user === '0') return argv
  if (user === 'nobody') return ['su', '-s', '/bin/sh', user, '-c', 'exec "$@"', 'sh', ...argv]
  throw new NestvmError('NO_SUCH_USER', `the built-in guest has no user ${user}, only root and nobody`, {
    hint: 'run an image that has it',
    exitStatus: 2,
  })
}
