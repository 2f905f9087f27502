import type { Bundle } from '../bundle/bundle.ts'
import { checkCapabilities } from '../engine/capability.ts'
import { hostProcessor, processorDifference } from '../engine/qemu/processor.ts'
import type { Qmp } from '../engine/qemu/qmp.ts'
import { heed } from '../host/rules/heed.ts'
import { nestedStateRule, processorRule, qemuRule } from '../host/rules/judge.ts'
import { lookAtSide, type Side } from '../host/rules/side.ts'
import { run } from '../machine/run.ts'
import type { Context } from '../stack/context.ts'
import { guestPlace } from '../stack/place.ts'
import { answerLimitMs } from '../stack/plan.ts'
import { descendants, type GuestRecord, listRecords, runningRecord } from '../stack/record.ts'
import { checkName } from '../stack/run.ts'
import { nameTaken } from '../stack/start.ts'
import { NestvmError } from '../store/error.ts'

export interface MigrateRequest {
  machine: string
  /** The path of the guest hypervisor that it is to run in. */
  to: string
  /** Its new name; the one that it has unless said. */
  name?: string
  /** Also where nobody vouches for it. */
  force: boolean
  /** Bytes in a second. */
  bandwidth?: number
  downtimeMs: number
  /** Told how far it is: bytes. */
  onProgress?: (progress: { sent: number; left: number }) => void
}

/** What moves, from where, and to where. */
export interface Move {
  guest: GuestRecord
  from: GuestRecord
  to: GuestRecord
  /** Its path there. */
  path: string
}

/** Whatever speaks against a move is found before anything is done. */
export async function checkMove(context: Context, bundle: Bundle, request: MigrateRequest): Promise<Move> {
  const guest = await runningRecord(request.machine)
  checkCapabilities(guest.engine, ['migration'], guest.path)
  const to = await runningRecord(request.to)
  const records = await listRecords()
  const from = records.find(({ id }) => id === guest.parent)
  if (!from) throw outermost(guest)
  const name = request.name ?? guest.path.slice(guest.path.lastIndexOf('/') + 1)
  checkName(name)
  const path = `${to.path}/${name}`
  const inner = descendants(guest, records)
  checkPlaces(guest, from, to, inner)
  checkWhole(guest, to, records, inner)
  if (records.some((other) => other.path === path && other.id !== guest.id)) throw nameTaken(path)
  const [here, there] = await Promise.all([look(context, from, bundle), look(context, to, bundle)])
  checkRoom(guest, to, there.availableMiB)
  checkRules(guest, from, to, [here, there], inner, request.force)
  return { guest, from, to, path }
}

function outermost({ path }: GuestRecord): NestvmError {
  return new NestvmError('UNSUPPORTED', `${path} runs on the host itself, whose devices no guest hypervisor has`, {
    hint: `to have it elsewhere, save and clone it: nestvm snapshot create ${path}`,
    exitStatus: 2,
  })
}

function checkPlaces(guest: GuestRecord, from: GuestRecord, to: GuestRecord, inner: readonly GuestRecord[]): void {
  const refuse = (why: string) => cannotMove(guest, to, why)
  if (!to.nested) throw refuse('it was not started as a guest hypervisor')
  if (to.id === from.id) throw refuse('it runs there already')
  if (to.id === guest.id || inner.some(({ id }) => id === to.id)) throw refuse('that runs in it')
  if (to.host !== from.host) throw refuse('it runs on another host')
  if (to.arch !== guest.arch) throw refuse(`it runs guests for ${to.arch}`)
  if (to.kernel?.name !== guest.kernel?.name) throw refuse('guests there have another kernel')
  if (!guest.detached) throw refuse('a nestvm runs that it belongs to')
  if (guest.moving) throw refuse('it is being moved already')
}

function cannotMove(guest: GuestRecord, to: GuestRecord, why: string, hint?: string): NestvmError {
  return new NestvmError('CANNOT_MOVE', `${guest.path} cannot move to ${to.path}: ${why}`, { hint, exitStatus: 2 })
}

/** What a guest has must be there too. */
function checkWhole(
  guest: GuestRecord,
  to: GuestRecord,
  records: readonly GuestRecord[],
  inner: readonly GuestRecord[],
): void {
  const refuse = (why: string, hint?: string) => cannotMove(guest, to, why, hint)
  const moved = [guest, ...inner]
  const stack = records.filter((other) => other.stack === guest.stack)
  if (guest.stack !== guest.id && stack.some(({ command }) => command)) {
    throw refuse('the levels around it end with its command', 'start it by itself: nestvm run -d --on MACHINE')
  }
  if (to.base === guest.base) return
  const served = moved.find(({ volumes }) => volumes.length > 0)
  if (served) throw refuse(`the volumes of ${served.path} are served through ${guest.path.split('/')[0]}`)
  const relatives = records.filter(({ base }) => base === to.base)
  if (relatives.some(({ address }) => moved.some((other) => other.address === address))) {
    throw refuse(`a guest in ${to.path.split('/')[0]} has its address`)
  }
}

interface Look extends Side {
  availableMiB: number
}

async function look(context: Context, hypervisor: GuestRecord, bundle: Bundle): Promise<Look> {
  const machine = await context.guest(hypervisor)
  const limits = { timeoutMs: answerLimitMs(hypervisor.level), signal: context.signal }
  const [side, { stdout }] = await Promise.all([
    lookAtSide(machine, guestPlace(machine, bundle).qemu, limits),
    run(machine, ['awk', '/^MemAvailable/ { print int($2 / 1024) }', '/proc/meminfo'], limits),
  ])
  return { ...side, availableMiB: Number(stdout) }
}

/** QEMU itself takes some beside the guest's own. */
const engineMiB = 96

function checkRoom(guest: GuestRecord, to: GuestRecord, availableMiB: number): void {
  const neededMiB = guest.memoryMiB + engineMiB
  if (neededMiB <= availableMiB) return
  throw new NestvmError(
    'NOT_ENOUGH_MEMORY',
    `${guest.path} needs ${neededMiB} MiB, but ${to.path} has ${availableMiB} MiB free`,
    {
      hint: 'give the guest hypervisor more --memory, or stop other guests in it',
      details: { neededMiB, availableMiB },
    },
  )
}

/** What the rules say of the QEMUs and of the state of guests in it, each side's KVM being one that has to know it. */
function checkRules(
  guest: GuestRecord,
  from: GuestRecord,
  to: GuestRecord,
  [here, there]: readonly [Look, Look],
  inner: readonly GuestRecord[],
  force: boolean,
): void {
  const intent = moveIntent(guest, to, force)
  const qemus = here.qemuLine === there.qemuLine ? 'same' : 'different'
  heed(qemuRule(qemus), { ...intent, seen: `${here.qemuLine} here, ${there.qemuLine} there` })
  const live = inner.filter(({ phase }) => phase === 'running')
  const kind = live.length > 0 ? 'nesting' : guest.nested ? 'hypervisor' : 'plain'
  const command = live.length > 0 ? `nestvm stop ${live.map(({ path }) => path).join(' ')}` : undefined
  for (const [{ path }, side] of [[from, here] as const, [to, there] as const]) {
    heed(nestedStateRule({ ...side, accel: 'kvm', guest: kind }), {
      ...{ ...intent, command },
      seen: `Linux ${side.kernel}, QEMU ${side.qemu} in ${path}`,
      details: { machine: path },
    })
  }
}

function moveIntent(guest: GuestRecord, to: GuestRecord, force: boolean) {
  const what = `${guest.path} cannot move to ${to.path}`
  return { what, force, forceCommand: `nestvm migrate --force ${guest.path} --to ${to.path}` }
}

/** QEMU knows what each side can offer once it runs there. Throws `PROCESSOR_MISMATCH` or `NOT_KNOWN_SAFE`. */
export async function checkProcessors({ guest, to }: Move, source: Qmp, target: Qmp, force: boolean): Promise<void> {
  const { processor, what } = processorDifference(await hostProcessor(source), await hostProcessor(target))
  heed(processorRule(processor), { ...moveIntent(guest, to, force), seen: what })
}
