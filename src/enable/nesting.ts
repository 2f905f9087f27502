import { type BootPlan, bootArgument, planBootArguments } from './grub.ts'
import { isOn, persistedOptions, persistOptions } from './modprobe.ts'
import type { CommandStep, FileStep, Plan, Step } from './plan.ts'
import type { Module, Seen } from './seen.ts'

/** A module whose parameters decide whether its guests may have guests. */
interface NestingModule {
  name: string
  /** `nested` and what must be with it, as values to set. */
  wanted: Readonly<Record<string, string>>
  /** Whether the kernel turns nesting on by itself, so that nothing needs to be written. */
  onByDefault: boolean
}

/** Steps and notes for one module, whichever the platform. */
export function planNesting(platform: Plan['platform'], seen: Seen, root: string, wantedModule: NestingModule): Plan {
  const { name, wanted } = wantedModule
  const module = root === '/' ? seen.modules.get(name) : undefined
  const on = module !== undefined && holds(module, wanted)
  if (module?.builtIn) return planBuiltIn(platform, seen, wantedModule, on)

  const files = optionFiles(seen, root, wantedModule, on)
  const summary = `${name} lets its guests be hypervisors already`
  if (root !== '/') {
    if (files.length === 0) return { platform, effect: 'already', steps: [], notes: [], summary }
    return {
      platform,
      effect: 'reload',
      steps: files,
      notes: [],
      summary: `${name} of ${root} is to be loaded with nesting`,
    }
  }
  const boot = planOverride(seen, name, wanted)
  const reload = on ? [] : reloadSteps(name, module, wanted)
  const busy = !on && module !== undefined && inUse(seen, module)
  const steps: Step[] = [...files, ...boot.steps, ...(busy ? [] : reload)]
  if (steps.length === 0 && !busy) return { platform, effect: 'already', steps, notes: boot.notes, summary }
  const state = module ? `is loaded with ${shown(module, wanted)}` : 'is not loaded'
  return {
    ...{ platform, steps, effect: busy ? 'reload' : 'now' },
    notes: [...boot.notes, ...(busy ? [busyNote(seen, reload)] : [])],
    summary: `${name} ${state}; its guests are to be allowed to be hypervisors`,
  }
}

/** None where modprobe loads it so already, by its files or by default. */
function optionFiles(seen: Seen, root: string, { name, wanted, onByDefault }: NestingModule, on: boolean): FileStep[] {
  const said = persistedOptions(seen, name)
  const saysOff = Object.keys(wanted).some((key) => said.has(key) && !isOnAs(said.get(key), wanted[key]))
  if (on && onByDefault && !saysOff) return []
  return persistOptions(seen, root, name, wanted, 'guests may be hypervisors whenever the module is loaded')
}

function planBuiltIn(platform: Plan['platform'], seen: Seen, { name, wanted }: NestingModule, on: boolean): Plan {
  const notes = ['KVM is built into this kernel: its parameters come from the kernel’s command line']
  if (on)
    return { platform, effect: 'already', steps: [], notes, summary: `${name} lets its guests be hypervisors already` }
  const boot = planBootArguments(seen, '/', asArguments(name, wanted), 'KVM is built in')
  return { ...boot, platform, notes: [...notes, ...boot.notes], summary: `${name} is built in, with nesting off` }
}

const asArguments = (module: string, wanted: Readonly<Record<string, string>>) =>
  Object.entries(wanted).map(([key, value]) => ({ name: `${module}.${key}`, value }))

/** modprobe heeds the kernel's command line last of all: what says otherwise there has to go. */
function planOverride(seen: Seen, module: string, wanted: Readonly<Record<string, string>>): Omit<BootPlan, 'effect'> {
  const contrary = asArguments(module, wanted).filter(({ name, value }) => {
    const said = bootArgument(seen.commandLine, name)
    return said !== undefined && !isOnAs(said, value)
  })
  if (contrary.length === 0) return { steps: [], notes: [] }
  return planBootArguments(seen, '/', contrary, 'the kernel’s command line says otherwise')
}

function reloadSteps(
  name: string,
  module: Module | undefined,
  wanted: Readonly<Record<string, string>>,
): CommandStep[] {
  const set = Object.entries(wanted).map(([key, value]) => `${key}=${value}`)
  const load: CommandStep = {
    kind: 'command',
    argv: ['modprobe', name, ...set],
    undo: [['modprobe', '-r', name], ...(module ? [['modprobe', name, ...former(module, wanted)]] : [])],
    why: 'it takes its parameters when it is loaded',
  }
  const unload: CommandStep = { kind: 'command', argv: ['modprobe', '-r', name], undo: [], why: 'nobody uses it' }
  return module ? [unload, load] : [load]
}

const former = (module: Module, wanted: Readonly<Record<string, string>>) =>
  Object.keys(wanted).flatMap((key) => (module.parameters.has(key) ? [`${key}=${module.parameters.get(key)}`] : []))

const inUse = ({ holders }: Seen, { users }: Module) => holders.length > 0 || (users ?? 0) > 0

function busyNote({ holders, uid }: Seen, reload: readonly CommandStep[]): string {
  const who = holders.map(({ pid, name }) => `${name} (${pid})`).join(', ')
  const by = who || (uid === 0 ? 'something that holds no file of it' : 'processes that only root may see')
  return `KVM is in use by ${by}: end that, then run: ${reload.map(({ argv }) => argv.join(' ')).join(' && ')}; or restart`
}

const isOnAs = (value: string | undefined, wanted: string | undefined) => isOn(value) === isOn(wanted)

const holds = ({ parameters }: Module, wanted: Readonly<Record<string, string>>) =>
  Object.entries(wanted).every(([key, value]) =>
    !parameters.has(key) ? key !== 'nested' : isOnAs(parameters.get(key), value),
  )

const shown = ({ parameters }: Module, wanted: Readonly<Record<string, string>>) =>
  Object.keys(wanted)
    .map((key) => `${key}=${parameters.get(key) ?? '?'}`)
    .join(' ')
