import type { Machine } from '../machine/machine.ts'
import { NestvmError } from '../store/error.ts'
import { planAcrn } from './acrn/plan.ts'
import { apply, type Book } from './apply.ts'
import { readText } from './files.ts'
import { journalDir, journalName, listJournals } from './journal.ts'
import type { Plan, Platform } from './plan.ts'
import { choosePlatforms, planPlatform } from './platform.ts'
import { look, type Seen } from './seen.ts'
import { planUndo, type UndoPlan } from './undo.ts'

/** What is to be enabled, and where. Paths are of the machine. */
export interface EnableRequest {
  machine: Machine
  /** What the machine is found to need, unless given. */
  platform?: Platform
  /** `/` unless it is the root directory of another system. */
  root: string
  user?: string
  vm?: string
  acrn: {
    scenario?: string
    output?: string
    kernelConfig?: string
    cpus: ReadonlyMap<string, readonly number[]>
  }
  signal?: AbortSignal
}

export interface Prepared {
  plan: Plan
  book: Book
}

/** Looks at the machine and plans; changes nothing. Throws what the plans throw. */
export async function prepare(request: EnableRequest): Promise<Prepared[]> {
  const { machine, root, vm, signal } = request
  const seen = await look(machine, { root, user: request.user, signal })
  const dir = journalDir(seen, root)
  if (request.platform === 'acrn') return [await prepareAcrn(request, dir)]
  const common = { seen, root, vm, user: seen.userName }
  const chosen = request.platform ? [request.platform] : choosePlatforms(common)
  return chosen.map((platform) => ({
    plan: planPlatform(platform, common),
    book: { dir, name: journalName(platform) },
  }))
}

/**
 * Carries plans out, and looks whether what was to count at once does. Throws `NEEDS_ROOT` before anything is done,
 * `NOT_EFFECTIVE`, and what `apply` throws.
 */
export async function enable(request: EnableRequest, prepared: readonly Prepared[]): Promise<void> {
  const { machine, root, signal } = request
  const todo = prepared.filter(({ plan }) => plan.steps.length > 0)
  const seen = await look(machine, { root, user: request.user, signal })
  if (todo.some(({ plan }) => plan.platform !== 'acrn')) requireRoot(machine, seen, root)
  for (const { plan, book } of todo) await apply({ machine, signal }, book, plan)
  if (!todo.some(({ plan }) => plan.effect === 'now')) return
  for (const { plan } of await prepare(request)) {
    const waited = todo.find((done) => done.plan.platform === plan.platform)?.plan.effect === 'now'
    if (!waited || plan.effect === 'already') continue
    throw new NestvmError('NOT_EFFECTIVE', `all was done, but it has no effect: ${plan.summary}`, {
      hint: 'look at the kernel’s log: dmesg | grep -i kvm',
    })
  }
}

/** What takes back what was enabled before. Throws `NOTHING_TO_UNDO`. */
export async function prepareUndo(request: EnableRequest): Promise<UndoPlan[]> {
  const { machine, root, platform, signal } = request
  const seen = await look(machine, { root, user: request.user, signal })
  const dir = journalDir(seen, root)
  const target = request.acrn.output ?? request.acrn.scenario
  const named = (name: string) => {
    if (platform === undefined) return true
    return target === undefined
      ? name === platform || name.startsWith(`${platform}-`)
      : name === journalName(platform, target)
  }
  const names = (await listJournals(machine, dir, signal)).filter(named)
  if (names.length === 0) {
    throw new NestvmError(
      'NOTHING_TO_UNDO',
      `there is nothing in ${dir} that nestvm has enabled${platform ? ` for ${platform}` : ''}`,
      {
        hint: 'undo as the user who enabled it, and with the same --root and --on',
      },
    )
  }
  const plans = await Promise.all(names.map((name) => planUndo(machine, { dir, name }, signal)))
  if (plans.some((plan) => plan.platform !== 'acrn')) requireRoot(machine, seen, root)
  return plans
}

async function prepareAcrn({ machine, acrn, vm, signal }: EnableRequest, dir: string): Promise<Prepared> {
  const file = async (path: string) => ({ path, text: await existing(machine, path, signal) })
  if (acrn.scenario === undefined && acrn.kernelConfig === undefined) {
    throw new NestvmError('BAD_SCENARIO', 'which scenario is not said', {
      hint: 'nestvm enable --platform acrn --scenario FILE',
      exitStatus: 2,
    })
  }
  const plan = planAcrn({
    ...(acrn.scenario === undefined ? {} : { scenario: await file(acrn.scenario) }),
    ...(acrn.output === undefined
      ? {}
      : { output: { path: acrn.output, text: await readText(machine, acrn.output, signal) } }),
    ...(acrn.kernelConfig === undefined ? {} : { kernelConfig: await file(acrn.kernelConfig) }),
    ...{ vm, cpus: acrn.cpus },
  })
  return { plan, book: { dir, name: journalName('acrn', acrn.output ?? acrn.scenario) } }
}

async function existing(machine: Machine, path: string, signal?: AbortSignal): Promise<string> {
  const text = await readText(machine, path, signal)
  if (text !== undefined) return text
  throw new NestvmError('NO_SUCH_FILE', `there is no file ${path}`, { details: { path } })
}

/** In another root directory writing will tell. */
function requireRoot(machine: Machine, { uid, userName }: Seen, root: string): void {
  if (uid === 0 || root !== '/') return
  const hint = machine.name === 'host' ? 'sudo nestvm enable' : 'reach it as root, as in ssh://root@host'
  throw new NestvmError('NEEDS_ROOT', `only root can enable this on ${machine.name}, not ${userName}`, { hint })
}
