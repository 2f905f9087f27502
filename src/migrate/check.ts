import type { Bundle } from '../bundle/bundle.ts'
import { checkCapabilities } from '../engine/capability.ts'
import { hostProcessor, processorDifference } from '../engine/qemu/processor.ts'
import type { Qmp } from '../engine/qemu/qmp.ts'
import { nestedStateRule } from '../host/nested-state.ts'
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
  checkQemu(guest, to, here, there, request.force)
  if (inner.some(({ phase }) => phase === 'running')) await checkNested(context, guest, [from, to], request.force)
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

interface Look {
  availableMiB: number
  qemu: string
}

const lookScript = `awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo
"$@" --version | head -n 1`

async function look(context: Context, hypervisor: GuestRecord, bundle: Bundle): Promise<Look> {
  const machine = await context.guest(hypervisor)
  const { qemu: program } = guestPlace(machine, bundle)
  const { stdout } = await run(machine, ['sh', '-c', lookScript, 'sh', ...program], {
    timeoutMs: answerLimitMs(hypervisor.level),
    signal: context.signal,
  })
  const [available = '', qemu = ''] = stdout.split('\n')
  return { availableMiB: Number(available), qemu: qemu.trim() }
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

/**
 * The guest sees the devices that it saw: its machine types have no versions, so only the same QEMU is known to make the
 * same ones.
 */
function checkQemu(guest: GuestRecord, to: GuestRecord, here: Look, there: Look, force: boolean): void {
  if (here.qemu !== there.qemu && !force) throw untested(guest, to, `${here.qemu} here, ${there.qemu} there`)
}

function untested(guest: GuestRecord, to: GuestRecord, why: string): NestvmError {
  return new NestvmError('NOT_KNOWN_SAFE', `nobody has tested whether ${guest.path} survives this: ${why}`, {
    hint: `nestvm migrate --force ${guest.path} --to ${to.path}`,
  })
}

/**
 * The guest has `-cpu host`, so both sides must offer the same (QEMU, "CPU models": host passthrough is safe between
 * identical processors). QEMU knows what each side can offer once it runs there.
 */
export async function checkProcessors({ guest, to }: Move, source: Qmp, target: Qmp, force: boolean): Promise<void> {
  const { wrong, untested: unsure } = processorDifference(await hostProcessor(source), await hostProcessor(target))
  if (wrong) {
    throw new NestvmError(
      'PROCESSOR_MISMATCH',
      `${to.path} offers another processor than ${guest.path} has: ${wrong}`,
      { hint: 'move it to a guest hypervisor whose processor is the same' },
    )
  }
  if (unsure !== undefined && !force) throw untested(guest, to, unsure)
}

/** A guest that runs guests has a state of KVM's besides its own, which both sides must know. */
async function checkNested(
  context: Context,
  guest: GuestRecord,
  sides: readonly GuestRecord[],
  force: boolean,
): Promise<void> {
  for (const side of sides) {
    const rule = await nestedStateRule(await context.guest(side))
    if (rule.known && (!rule.untested || force)) continue
    const way = rule.known ? `, or: nestvm migrate --force ${guest.path} --to ${sides[1]?.path}` : ''
    throw new NestvmError('NESTED_STATE_LOST', `${guest.path} cannot move with guests running in it: ${rule.why}`, {
      hint: `stop them first: nestvm ls --tree${way}`,
      details: { ...rule, machine: side.path },
    })
  }
}
