import { isAbsolute, resolve } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import type { EnableRequest } from '../enable/enable.ts'
import { type Platform, platforms } from '../enable/plan.ts'
import { NestvmError } from '../store/error.ts'
import { confirm } from './confirm.ts'
import { showPlan, stepsForJson } from './enable-plan.ts'
import { printJson, type Session, session } from './session.ts'

interface EnableOptions {
  platform?: Platform
  on?: string
  root: string
  user?: string
  vm?: string
  scenario?: string
  output?: string
  cpus: Map<string, number[]>
  kernelConfig?: string
  dryRun?: boolean
  yes?: boolean
  undo?: boolean
  json?: boolean
}

export function enableCommand(): Command {
  return new Command('enable')
    .description('Turn nested virtualization on, or say how, and undo it.')
    .addOption(
      new Option('--platform <platform>', 'what to enable (default: what the machine needs)').choices(platforms),
    )
    .option('--on <machine>', 'a guest, or ssh://[user@]host[:port] (default: this host)')
    .option('--root <dir>', 'change the system in this directory rather than the running one', '/')
    .option('--user <name>', 'whom /dev/kvm is to be for (default: who calls, before sudo)')
    .option('--vm <name>', "a virtual machine's name on Hyper-V, in a cloud, or in a scenario")
    .option('--scenario <file>', "ACRN's scenario to edit")
    .option('-o, --output <file>', 'where the edited scenario goes (default: it stays in its file)')
    .option(
      '--cpus <[vm=]list>',
      "physical CPUs of a scenario's VM, such as 1-3; the Service VM's without a name",
      collectCpus,
      new Map(),
    )
    .option('--kernel-config <file>', "check the configuration of the Service VM's kernel")
    .option('--dry-run', 'show what would be done, and do nothing')
    .option('-y, --yes', 'do not ask')
    .option('--undo', 'take back what was enabled')
    .option('--json', 'print JSON')
    .action((options: EnableOptions) =>
      session(options.json === true, (own) => (options.undo ? undoIt : enableIt)(own, options)),
    )
}

async function enableIt(own: Session, options: EnableOptions): Promise<number> {
  const { enable, prepare } = await import('../enable/enable.ts')
  const request = await requestOf(own, options)
  const prepared = await prepare(request)
  const plans = prepared.map(({ plan }) => plan)
  if (!options.json) for (const plan of plans) showPlan(plan)
  const todo = plans.some(({ steps }) => steps.length > 0) && !options.dryRun
  if (todo) {
    await confirm(own, options)
    await enable(request, prepared)
  }
  if (options.json) {
    const shown = plans.map((plan) => ({ ...plan, steps: stepsForJson(plan.steps) }))
    printJson({ machine: request.machine.name, root: request.root, plans: shown, applied: todo })
  } else if (todo) console.log('done; nestvm enable --undo takes it back')
  return 0
}

async function undoIt(own: Session, options: EnableOptions): Promise<number> {
  const { prepareUndo } = await import('../enable/enable.ts')
  const { undo } = await import('../enable/undo.ts')
  const request = await requestOf(own, options)
  const plans = await prepareUndo(request)
  if (!options.json) {
    for (const { platform, steps, notes } of plans)
      showPlan({ title: platform, steps, notes, summary: 'what was enabled is taken back' })
  }
  if (!options.dryRun) {
    await confirm(own, options)
    for (const plan of plans) await undo(request.machine, plan, own.context.signal)
  }
  if (options.json) {
    const shown = plans.map(({ platform, steps, notes }) => ({ platform, notes, steps: stepsForJson(steps) }))
    printJson({ machine: request.machine.name, root: request.root, plans: shown, applied: !options.dryRun })
  } else if (!options.dryRun) console.log('done')
  return 0
}

async function requestOf({ context }: Session, options: EnableOptions): Promise<EnableRequest> {
  const { machineOn } = await import('../stack/on.ts')
  const { platform, root, user, vm, scenario, output, kernelConfig, cpus } = options
  const path = (name: string) => pathOn(options.on, name)
  const acrn = {
    ...(scenario === undefined ? {} : { scenario: path(scenario) }),
    ...(output === undefined ? {} : { output: path(output) }),
    ...(kernelConfig === undefined ? {} : { kernelConfig: path(kernelConfig) }),
    cpus,
  }
  const machine = await machineOn(context, options.on)
  const wanted = platform ?? (scenario === undefined && kernelConfig === undefined ? undefined : 'acrn')
  return { machine, platform: wanted, root: path(root), user, vm, acrn, signal: context.signal }
}

/** Another machine has no directory that relative paths would start from. */
function pathOn(on: string | undefined, path: string): string {
  if (on === undefined) return resolve(path)
  if (isAbsolute(path)) return path
  throw new NestvmError('BAD_PATH', `${path} has to be an absolute path of ${on}`, { exitStatus: 2 })
}

/** `[VM=]LIST`, a list such as `0,2-3`. */
function collectCpus(text: string, before: Map<string, number[]>): Map<string, number[]> {
  const at = text.lastIndexOf('=')
  const cpus = text
    .slice(at + 1)
    .split(',')
    .flatMap(cpuRange)
  return new Map([...before, [at < 0 ? '' : text.slice(0, at), [...new Set(cpus)]]])
}

function cpuRange(text: string): number[] {
  const [, first, last = first] = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(text.trim()) ?? []
  if (first === undefined || Number(last) < Number(first))
    throw new InvalidArgumentError('Use a list of CPUs such as 0,2-3.')
  return Array.from({ length: Number(last) - Number(first) + 1 }, (_, index) => Number(first) + index)
}
