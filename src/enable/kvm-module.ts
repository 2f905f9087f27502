import { NestvmError } from '../store/error.ts'
import { type BootPlan, bootArgument, planBootArguments } from './grub.ts'
import { isOn, persistedOptions, persistOptions } from './modprobe.ts'
import type { CommandStep, Plan, Request, Step } from './plan.ts'
import type { Module, Seen } from './seen.ts'

/** A module whose parameters decide whether its guests may have guests. */
interface NestingModule {
  name: string
  /** `nested` and what must be with it, as values to set. */
  wanted: Readonly<Record<string, string>>
  /** Whether the kernel turns nesting on by itself, so that nothing needs to be written. */
  onByDefault: boolean
}

/**
 * Intel and AMD: parameter `nested` of kvm_intel or kvm_amd. It cannot be written at run time, so the module is loaded
 * anew where nobody uses it. Throws `NO_VIRTUALIZATION` when the running machine's processor shows no such extension.
 */
export function planKvmX86(vendor: 'intel' | 'amd', { seen, root }: Request): Plan {
  const flag = vendor === 'intel' ? 'vmx' : 'svm'
  if (root === '/' && !seen.cpuFlags.has(flag)) throw noExtension(seen, flag)
  const name = `kvm_${vendor}`
  const slowdowns = vendor === 'intel' ? intelSlowdowns(seen) : amdSlowdowns(seen)
  return planNesting(vendor, seen, root, {
    name,
    wanted: { nested: '1', ...slowdowns },
    // Linux 4.20, commit 1e58e5e59148; kvm_amd has had it on since long before.
    onByDefault: vendor === 'amd' || atLeast(seen.kernelRelease, 4, 20),
  })
}

/** Steps and notes for one module, whichever the platform. */
export function planNesting(platform: Plan['platform'], seen: Seen, root: string, wantedModule: NestingModule): Plan {
  const { name, wanted } = wantedModule
  const why = 'guests may be hypervisors whenever the module is loaded'
  const module = root === '/' ? seen.modules.get(name) : undefined
  const on = module !== undefined && holds(module, wanted)
  if (module?.builtIn) return planBuiltIn(platform, seen, root, wantedModule, on)

  const said = persistedOptions(seen, name)
  const saysOff = Object.keys(wanted).some((key) => said.has(key) && !isOnAs(said.get(key), wanted[key]))
  const persists = on && wantedModule.onByDefault && !saysOff
  const files = persists ? [] : persistOptions(seen, root, name, wanted, why)
  const boot = planOverride(seen, root, name, wanted)
  if (root !== '/') {
    const effect = files.length > 0 ? 'reload' : 'already'
    return {
      platform,
      effect,
      steps: files,
      notes: [],
      summary: `modprobe of ${root} ${files.length > 0 ? 'is to load' : 'loads'} ${name} with nesting`,
    }
  }
  const reload = on ? [] : reloadSteps(name, module, wanted)
  const busy = !on && module !== undefined && inUse(seen, module)
  const steps: Step[] = [...files, ...boot.steps, ...(busy ? [] : reload)]
  const notes = [...boot.notes, ...(busy ? [busyNote(seen, reload)] : [])]
  if (steps.length === 0 && !busy)
    return { platform, effect: 'already', steps, notes, summary: `${name} lets its guests be hypervisors already` }
  const state = module ? `${name} is loaded with ${shown(module, wanted)}` : `${name} is not loaded`
  return {
    platform,
    effect: busy ? 'reload' : 'now',
    steps,
    notes,
    summary: `${state}; its guests are to be allowed to be hypervisors`,
  }
}

function planBuiltIn(
  platform: Plan['platform'],
  seen: Seen,
  root: string,
  { name, wanted }: NestingModule,
  on: boolean,
): Plan {
  const notes = ['KVM is built into this kernel: its parameters come from the kernel’s command line']
  if (on)
    return { platform, effect: 'already', steps: [], notes, summary: `${name} lets its guests be hypervisors already` }
  const boot = planBootArguments(seen, root, asArguments(name, wanted), 'KVM is built in')
  return { ...boot, platform, notes: [...notes, ...boot.notes], summary: `${name} is built in, with nesting off` }
}

const asArguments = (module: string, wanted: Readonly<Record<string, string>>) =>
  Object.entries(wanted).map(([key, value]) => ({ name: `${module}.${key}`, value }))

/** modprobe heeds the kernel's command line last of all: what says otherwise there has to go. */
function planOverride(
  seen: Seen,
  root: string,
  module: string,
  wanted: Readonly<Record<string, string>>,
): Omit<BootPlan, 'effect'> {
  const contrary = asArguments(module, wanted).filter(({ name, value }) => {
    const said = root === '/' ? bootArgument(seen.commandLine, name) : undefined
    return said !== undefined && !isOnAs(said, value)
  })
  if (contrary.length === 0) return { steps: [], notes: [] }
  return planBootArguments(seen, root, contrary, 'the kernel’s command line says otherwise')
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

/** On by default where the processor can: off means that somebody said so. Guests of guests are slow without. */
function intelSlowdowns(seen: Seen): Record<string, string> {
  const off = turnedOff(seen, 'kvm_intel')
  return {
    ...(off('ept') && (seen.cpuFlags.has('ept') || seen.vmxFlags.has('ept')) ? { ept: '1' } : {}),
    ...(off('enable_shadow_vmcs') && seen.vmxFlags.has('shadow_vmcs') ? { enable_shadow_vmcs: '1' } : {}),
  }
}

function amdSlowdowns(seen: Seen): Record<string, string> {
  return turnedOff(seen, 'kvm_amd')('npt') && seen.cpuFlags.has('npt') ? { npt: '1' } : {}
}

const turnedOff = (seen: Seen, module: string) => (parameter: string) => {
  const value = seen.modules.get(module)?.parameters.get(parameter) ?? persistedOptions(seen, module).get(parameter)
  return value !== undefined && !isOn(value)
}

/** `6.1.0-13-amd64` is at least 6.1. */
export function atLeast(release: string, major: number, minor: number): boolean {
  const [, one = '0', two = '0'] = /^(\d+)\.(\d+)/.exec(release) ?? []
  return Number(one) > major || (Number(one) === major && Number(two) >= minor)
}

/** Linux hides a flag that the firmware has locked, and says so in its log. */
function noExtension({ log, cpuFlags }: Seen, flag: string): NestvmError {
  const firmware = log.split('\n').find((line) => /(VMX|SVM).*disabled .*BIOS|disabled by bios/i.test(line))
  if (firmware) {
    return new NestvmError(
      'NO_VIRTUALIZATION',
      `the firmware has turned ${flag} off: ${firmware.replace(/^\[[^\]]*\] /, '')}`,
      {
        hint: 'turn virtualization (VT-x, SVM) on in the firmware’s settings',
      },
    )
  }
  const inGuest = cpuFlags.has('hypervisor')
  return new NestvmError(
    'NO_VIRTUALIZATION',
    `the processor shows no ${flag}${inGuest ? ': this is a virtual machine, whose hypervisor does not offer it' : ''}`,
    {
      hint: inGuest
        ? 'nestvm enable, without --platform, tells what to do on the level above'
        : 'turn it on in the firmware’s settings',
    },
  )
}
