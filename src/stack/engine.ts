import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Capability, checkCapabilities } from '../engine/capability.ts'
import { type ApiRequest, FirecrackerApi } from '../engine/firecracker/api.ts'
import { bootRequests, firecrackerCommand } from '../engine/firecracker/boot.ts'
import type { FirecrackerProgram } from '../engine/firecracker/program.ts'
import { type QemuSpec, qemuArguments } from '../engine/qemu/argv.ts'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { outsideMac } from './address.ts'
import { bochsStart } from './bochs.ts'
import { unlessEnded } from './death.ts'
import type { Launched } from './launch.ts'
import type { Place } from './place.ts'
import { answerLimitMs, type LevelPlan } from './plan.ts'
import type { GuestRecord } from './record.ts'

/** How an engine is started, and what it is told once it runs. */
export interface EngineStart {
  command: readonly string[]
  env?: Readonly<Record<string, string>>
  /** Makes what else it needs, on the host. */
  prepare?: () => Promise<void>
  requests: readonly ApiRequest[]
}

export function engineStart(
  record: Pick<GuestRecord, 'engine' | 'parent' | 'tap' | 'bridge' | 'engineDir' | 'socketDir'>,
  place: Pick<Place, 'qemu' | 'kernel' | 'bochs'>,
  spec: QemuSpec,
  program: FirecrackerProgram | undefined,
): EngineStart {
  const { engine, parent, tap, bridge } = record
  if (engine === 'bochs') return { ...bochsStart(record, place, spec), requests: [] }
  if (engine === 'qemu') return { command: [...place.qemu, ...qemuArguments(spec)], requests: [] }
  // On a host the one network card is that on the bridge.
  const card = bridge ? { tap: bridge.tap, mac: outsideMac(spec.mac) } : { tap: tap ?? '' }
  const path = parent ? program?.pathInGuest : program?.path
  const own = { ...spec, ...card, program: path ?? '' }
  return { command: firecrackerCommand(own), requests: bootRequests(own) }
}

/** What is asked of a level's engine besides its plan. */
export interface Asked {
  /** A host runs it, with a bridged network or another. */
  onHost: boolean
  bridged: boolean
  /** That host is reached over ssh. */
  remote: boolean
  /** Something is to be led into it from there. */
  leads: boolean
  /** It ends with a command that nobody waits for. */
  ends: boolean
  /** It has a processor by name. */
  named: boolean
  /** What a container writes is kept, on a disk that it or a guest in it has. */
  writes: boolean
}

/** Throws `ENGINE_CANNOT` where a level's engine cannot do what is asked of it. */
export function checkEngine(
  plan: LevelPlan,
  { onHost, remote, bridged, leads, ends, named, writes }: Asked,
  program?: FirecrackerProgram,
): void {
  const { engine, path, accel, arch, nested, cpus, memoryMiB } = plan
  const wanted: Capability[] = []
  if (accel === 'tcg') wanted.push('emulation')
  if (onHost && !bridged) wanted.push('user-network')
  if (onHost && (leads || nested)) wanted.push('forwarding')
  if (nested) wanted.push(arch === 'arm64' ? 'arm64-hypervisor' : 'x86-hypervisor')
  if (ends) wanted.push('detached-command')
  if (onHost && bridged) wanted.push('bridged-network')
  if (onHost && remote) wanted.push('remote-host')
  if (named) wanted.push('named-processor')
  if (writes) wanted.push('writable-disk')
  if (cpus > 1) wanted.push('several-cpus')
  if (cpus > 32) wanted.push('many-cpus')
  if (memoryMiB > 2048) wanted.push('much-memory')
  checkCapabilities(engine, wanted, path, program?.gives)
}

/** Copies Firecracker to a guest hypervisor, where it is not there already. */
export async function bringProgram(
  machine: Machine,
  { pathInGuest, data }: FirecrackerProgram,
  level: number,
  signal: AbortSignal,
): Promise<void> {
  const limits = { timeoutMs: answerLimitMs(level), signal }
  const { exit } = await run(machine, ['test', '-x', pathInGuest], { ...limits, allowFailure: true })
  if (exit.code === 0) return
  await run(machine, ['sh', '-c', receiveScript, 'sh', pathInGuest], { ...limits, input: data })
}

const receiveScript = 'cat > "$1.$$" && chmod 755 "$1.$$" && mv "$1.$$" "$1"'

/** Tells an engine that was started what its guest is to be. Throws `API_ERROR`, or why the engine ended. */
export async function tell(
  machine: Machine,
  launched: Launched,
  socket: string,
  requests: readonly ApiRequest[],
  signal: AbortSignal,
): Promise<void> {
  if (requests.length === 0) return
  const ended = new AbortController()
  const within = AbortSignal.any([signal, ended.signal])
  try {
    await unlessEnded(sendAll(machine, socket, requests, within), launched)
  } finally {
    ended.abort()
  }
}

async function sendAll(
  machine: Machine,
  socket: string,
  requests: readonly ApiRequest[],
  signal: AbortSignal,
): Promise<void> {
  const api = new FirecrackerApi((stop) => connected(machine, socket, stop))
  for (const request of requests) await api.send(request, signal)
}

/** Firecracker makes its socket while it starts. */
async function connected(machine: Machine, socket: string, signal: AbortSignal): Promise<Duplex> {
  for (;;) {
    try {
      return await machine.connect({ unix: socket }, signal)
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof NestvmError && error.code === 'CONNECT_FAILED')) throw error
      await sleep(20, undefined, { signal })
    }
  }
}
