import { checkCapabilities } from '../engine/capability.ts'
import { lacking, parseCpuModel, readOffer } from '../engine/qemu/cpu-model.ts'
import { type Difference, hostProcessor, processorDifference } from '../engine/qemu/processor.ts'
import type { Qmp } from '../engine/qemu/qmp.ts'
import { chooseAccel } from '../host/accel.ts'
import { heed } from '../host/rules/heed.ts'
import { emulatedRule, guestKind, nestedStateRule, processorRule, qemuRule } from '../host/rules/judge.ts'
import { lookAtSide, type Side } from '../host/rules/side.ts'
import { run } from '../machine/run.ts'
import type { Context } from '../stack/context.ts'
import { answerLimitMs } from '../stack/plan.ts'
import { descendants, type GuestRecord, lineage, listRecords, runningRecord } from '../stack/record.ts'
import { checkName } from '../stack/run.ts'
import { scratchesOf, scratchPath } from '../stack/scratch.ts'
import { nameTaken } from '../stack/start.ts'
import { NestvmError } from '../store/error.ts'
import { isAlive } from '../store/process.ts'
import { type End, endNamed, endOf, type Supplies } from './end.ts'

export interface MigrateRequest {
  machine: string
  /** The path of the guest hypervisor that it is to run in, or the name of a host. */
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
  from: End
  to: End
  /** Its path there. */
  path: string
}

/** Whatever speaks against a move is found before anything is done. */
export async function checkMove(context: Context, supplies: Supplies, request: MigrateRequest): Promise<Move> {
  const guest = await runningRecord(request.machine)
  checkCapabilities(guest.engine, ['migration'], guest.path)
  const to = await endNamed(context, supplies, request.to)
  const from = await endOf(context, supplies, guest)
  const records = await listRecords()
  const name = request.name ?? guest.path.slice(guest.path.lastIndexOf('/') + 1)
  checkName(name)
  const path = to.hypervisor ? `${to.hypervisor.path}/${name}` : name
  const inner = descendants(guest, records)
  checkEnds(guest, from, to)
  if (to.hypervisor) checkHypervisor(guest, to.hypervisor, inner)
  checkStill(guest, to, records)
  checkWhole(guest, to, records, inner)
  checkBundle(guest, to)
  if (records.some((other) => other.path === path && other.id !== guest.id)) throw nameTaken(path)
  const [here, there] = await Promise.all([look(context, from), look(context, to)])
  checkRoom(guest, to, there.availableMiB)
  checkRules(guest, from, to, [here, there], inner, request.force)
  if (!to.hypervisor) await checkHost(context, guest, from, to)
  return { guest, from, to, path }
}

function cannotMove(guest: GuestRecord, to: Pick<End, 'name'>, why: string, hint?: string): NestvmError {
  return new NestvmError('CANNOT_MOVE', `${guest.path} cannot move to ${to.name}: ${why}`, { hint, exitStatus: 2 })
}

/** A nested guest has other devices than one of level 1: a tap device for each network card, and no second card. */
function checkEnds(guest: GuestRecord, from: End, to: End): void {
  if (!from.hypervisor && to.hypervisor) {
    throw new NestvmError(
      'UNSUPPORTED',
      `${guest.path} runs on the host itself, whose devices no guest hypervisor has`,
      {
        hint: `to have it elsewhere, save and clone it: nestvm snapshot create ${guest.path}`,
        exitStatus: 2,
      },
    )
  }
  if (from.hypervisor && !to.hypervisor) {
    throw new NestvmError('UNSUPPORTED', `${guest.path} runs in ${from.name}: on a host it would have other devices`, {
      hint: `move all of it: nestvm migrate ${guest.path.split('/')[0]} --to ${to.name}`,
      exitStatus: 2,
    })
  }
  if (to.id === from.id) throw cannotMove(guest, to, 'it runs there already')
  if (!guest.detached) throw cannotMove(guest, to, 'a nestvm runs that it belongs to')
}

function checkHypervisor(guest: GuestRecord, to: GuestRecord, inner: readonly GuestRecord[]): void {
  const refuse = (why: string) => cannotMove(guest, { name: to.path }, why)
  if (!to.nested) throw refuse('it was not started as a guest hypervisor')
  if (to.id === guest.id || inner.some(({ id }) => id === to.id)) throw refuse('that runs in it')
  if (to.arch !== guest.arch) throw refuse(`it runs guests for ${to.arch}`)
  if (to.kernel?.name !== guest.kernel?.name) throw refuse('guests there have another kernel')
}

/** To be asked under the lock that records come and go by: nobody else is at what would be moved, or where it would go. */
export function checkStill(guest: GuestRecord, to: End, records: readonly GuestRecord[]): void {
  const refuse = (why: string) => cannotMove(guest, to, why)
  const moving = [...lineage(guest, records), ...(to.hypervisor ? lineage(to.hypervisor, records) : [])]
  for (const { path, moving: move } of [...moving, ...descendants(guest, records)]) {
    if (move) throw refuse(`${path} is being moved`)
  }
  for (const { path, owner, phase } of [guest, ...descendants(guest, records)]) {
    if (owner && isAlive(owner)) throw refuse(`a nestvm runs that ${path} belongs to`)
    if (phase === 'starting') throw refuse(`${path} is starting`)
  }
  if (guest.saver && isAlive(guest.saver)) throw refuse('it is being saved')
}

/**
 * A guest hypervisor has the layer with QEMU in it mounted, and runs QEMU from there: under another one's contents that
 * would end. Of a host's own QEMU the bundle tells which it is.
 */
function checkBundle(guest: GuestRecord, to: End): void {
  if (to.hypervisor && !guest.nested) return
  const there = to.hypervisor ? to.hypervisor.bundle : to.bundle.digest
  if (guest.bundle === there) return
  throw cannotMove(guest, to, 'it was started from another version of the bundle than there is', 'start it anew')
}

/** What decides whether the same engine does the same there. */
async function checkHost(context: Context, guest: GuestRecord, from: End, to: End): Promise<void> {
  const { accel, arch, nested } = guest
  // The same host by another name, for example.
  const dir = to.host.engineDir(guest.id)
  const { exit } = await run(to.host.machine, ['test', '!', '-e', dir], { timeoutMs: 30_000, allowFailure: true })
  if (exit.code !== 0) throw cannotMove(guest, to, `there is a ${dir} already: is that the host that it runs on?`)
  if (guest.bridge) throw cannotMove(guest, to, 'its address is one of a bridge of this host')
  await checkDiskRoom(context, guest, from, to)
  if (accel === 'kvm') {
    await chooseAccel('kvm', to.host.machine, to.place.qemu, { nested, arch, signal: context.signal })
    return
  }
  const [here = 0, there = 0] = [from.place.counterKhz, to.place.counterKhz]
  if (arch === 'x86_64' && Math.abs(here - there) > here / 200) {
    const rates = `${here} kHz here, ${there} kHz there`
    throw cannotMove(guest, to, `an emulated processor shows the host's time stamp counter, which runs at ${rates}`)
  }
}

/** What is on the disks that the guest writes goes there too. */
async function checkDiskRoom({ signal }: Context, guest: GuestRecord, from: End, to: End): Promise<void> {
  const written = scratchesOf(guest).map((content) => scratchPath(from.host, content))
  if (written.length === 0) return
  const ask = async ({ host }: End, script: string, paths: readonly string[]) => {
    const { stdout } = await run(host.machine, ['sh', '-c', script, 'sh', ...paths], { timeoutMs: 30_000, signal })
    return Math.ceil(Number(stdout) / 1024)
  }
  const [neededMiB, freeMiB] = await Promise.all([
    ask(from, usedScript, written),
    ask(to, freeScript, [to.host.disksDir]),
  ])
  if (neededMiB <= freeMiB) return
  const what = `what is on its disks takes ${neededMiB} MiB, of which ${to.host.disksDir} has ${freeMiB} MiB free`
  throw new NestvmError('NO_SPACE', `${guest.path} cannot move to ${to.name}: ${what}`, {
    hint: 'make room there, or set XDG_STATE_HOME there',
    details: { neededMiB, freeMiB },
  })
}

/** KiB. A disk whose guest is gone takes none. */
const usedScript = `du -k -- "$@" 2> /dev/null | awk '{ sum += $1 } END { print sum + 0 }'`
const freeScript = `dir=$1; until [ -d "\${dir:-/}" ]; do dir=\${dir%/*}; done; df -Pk -- "\${dir:-/}" | awk 'END { print $4 }'`

/** What a guest has must be there too. */
export function checkWhole(
  guest: GuestRecord,
  to: End,
  records: readonly GuestRecord[],
  inner: readonly GuestRecord[],
): void {
  const refuse = (why: string, hint?: string) => cannotMove(guest, to, why, hint)
  const moved = [guest, ...inner]
  const stack = records.filter((other) => other.stack === guest.stack)
  if (guest.stack !== guest.id && stack.some(({ command }) => command)) {
    throw refuse('the levels around it end with its command', 'start it by itself: nestvm run -d --on MACHINE')
  }
  const written = moved.find(({ scratch }) => scratch)
  const { hypervisor } = to
  if (written && hypervisor && to.host.name !== guest.host) {
    const outermost = guest.path.split('/')[0]
    throw refuse(
      `what ${written.path} writes is in a file of its host`,
      `move all of it: nestvm migrate ${outermost} --to ${to.host.name}`,
    )
  }
  if (hypervisor?.base === guest.base) return
  if (!hypervisor) {
    // Those of the guests in it are led through it, by connections that can be broken and are made anew.
    if (guest.volumes.length > 0) throw refuse('its connection to the server of its volumes would break')
    return
  }
  const closed = moved.find(({ network }) => network === 'none')
  const [base, ...relatives] = records.filter((other) => other.base === hypervisor.base)
  if (closed && base?.network !== 'none') throw refuse(`nothing there keeps ${closed.path} off the network`)
  if ([base, ...relatives].some((other) => moved.some(({ address }) => address === other?.address))) {
    throw refuse(`a guest in ${base?.path} has its address`)
  }
  const slots = moved.flatMap(({ volumeSlot }) => volumeSlot ?? [])
  const holder = [base, ...relatives].find((other) => slots.some((slot) => slot === other?.volumeSlot))
  if (holder) throw refuse(`${holder.path} has its volumes by the port that its own need`)
}

interface Look extends Side {
  availableMiB: number
}

async function look(context: Context, { place, level }: End): Promise<Look> {
  const limits = { timeoutMs: answerLimitMs(level), signal: context.signal }
  const [side, { stdout }] = await Promise.all([
    lookAtSide(place.machine, place.qemu, limits),
    run(place.machine, ['awk', '/^MemAvailable/ { print int($2 / 1024) }', '/proc/meminfo'], limits),
  ])
  return { ...side, availableMiB: Number(stdout) }
}

/** QEMU itself takes some beside the guest's own. */
const engineMiB = 96

function checkRoom(guest: GuestRecord, to: End, availableMiB: number): void {
  const neededMiB = guest.memoryMiB + engineMiB
  if (neededMiB <= availableMiB) return
  throw new NestvmError(
    'NOT_ENOUGH_MEMORY',
    `${guest.path} needs ${neededMiB} MiB, but ${to.name} has ${availableMiB} MiB free`,
    {
      hint: 'stop other guests there, or give a guest hypervisor more --memory',
      details: { neededMiB, availableMiB },
    },
  )
}

/** What the rules say of the QEMUs and of the state of guests in it, each side's KVM being one that has to know it. */
function checkRules(
  guest: GuestRecord,
  from: End,
  to: End,
  [here, there]: readonly [Look, Look],
  inner: readonly GuestRecord[],
  force: boolean,
): void {
  const intent = moveIntent(guest, to, force)
  const qemus = here.qemuLine === there.qemuLine ? 'same' : 'different'
  heed(qemuRule(qemus), { ...intent, seen: `${here.qemuLine} here, ${there.qemuLine} there` })
  const live = inner.filter(({ phase }) => phase === 'running')
  const kind = guestKind(guest.nested, live.length)
  const command = live.length > 0 ? `nestvm stop ${live.map(({ path }) => path).join(' ')}` : undefined
  if (guest.accel === 'tcg') {
    heed(emulatedRule(guest.arch, kind), intent)
    return
  }
  for (const [{ name }, side] of [[from, here] as const, [to, there] as const]) {
    heed(nestedStateRule({ ...side, accel: guest.accel, guest: kind }), {
      ...{ ...intent, command },
      seen: `Linux ${side.kernel}, QEMU ${side.qemu} on ${name}`,
      details: { machine: name },
    })
  }
}

function moveIntent(guest: GuestRecord, to: End, force: boolean) {
  const what = `${guest.path} cannot move to ${to.name}`
  return { what, force, forceCommand: `nestvm migrate --force ${guest.path} --to ${to.name}` }
}

/** QEMU knows what each side can offer once it runs there. Throws `PROCESSOR_MISMATCH` or `NOT_KNOWN_SAFE`. */
export async function checkProcessors({ guest, to }: Move, source: Qmp, target: Qmp, force: boolean): Promise<void> {
  // The same QEMU emulates the same everywhere.
  if (guest.accel === 'tcg') return
  const between = processorDifference(await hostProcessor(source), await hostProcessor(target))
  const { processor, what } =
    guest.cpuModel === undefined || between.processor === 'maker' ? between : await modelThere(target, guest.cpuModel)
  heed(processorRule(processor), { ...moveIntent(guest, to, force), seen: what })
}

/** Whether a QEMU there offers a named model, with all that the guest has of it. */
async function modelThere(target: Qmp, text: string): Promise<Difference> {
  const model = parseCpuModel(text)
  const missing = await lacking(target, await readOffer(target, 'kvm'), model)
  if (missing?.length === 0) return { processor: 'offered' }
  return { processor: 'lacking', what: missing ? `${model.name} without ${missing.join(', ')}` : `no ${model.name}` }
}
