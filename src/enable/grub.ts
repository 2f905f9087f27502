import { type CommandStep, commands, type FileStep, type Step, within } from './plan.ts'
import type { Seen } from './seen.ts'

/** Debian's and Ubuntu's grub-mkconfig reads these after /etc/default/grub. */
const dropInDir = '/etc/default/grub.d'
const dropIn = `${dropInDir}/zz-nestvm.cfg`
const mainFile = '/etc/default/grub'

/** An argument of the kernel. The kernel takes - and _ in names for the same. */
export interface BootArgument {
  name: string
  value: string
}

/** The value that a command line gives an argument; the last one counts. */
export function bootArgument(commandLine: string, name: string): string | undefined {
  return [...commandLine.matchAll(argumentPattern(name))].at(-1)?.[2]
}

export interface BootPlan {
  steps: Step[]
  notes: string[]
  /** `reboot` once the steps are done, which they may be already; `elsewhere` where there is no GRUB. */
  effect: 'reboot' | 'elsewhere'
}

/**
 * What makes the kernel get arguments from its next start on, by GRUB's configuration. Other values that they have
 * there are changed in their place. Without GRUB there are no steps, and a note says what to do.
 */
export function planBootArguments(seen: Seen, root: string, wanted: readonly BootArgument[], why: string): BootPlan {
  let files = seen.files
  for (const argument of wanted) {
    const changed = changedFiles({ ...seen, files }, argument)
    if (changed === undefined) return { steps: [], notes: [noGrub(wanted)], effect: 'elsewhere' }
    files = new Map([...files, ...changed])
  }
  const steps = [...files].flatMap(([path, after]): FileStep[] => {
    const before = seen.files.get(path)
    return before === after ? [] : [{ kind: 'file', path: within(root, path), before, after, why }]
  })
  if (steps.length === 0) return { steps, notes: ['GRUB’s configuration says so already: restart'], effect: 'reboot' }
  const { steps: update, notes } = commands(root, updateGrub(seen, wanted))
  return { steps: [...steps, ...update], notes, effect: 'reboot' }
}

const noGrub = (wanted: readonly BootArgument[]) =>
  `there is no /etc/default/grub: add ${wanted.map(written).join(' ')} to the kernel's command line in your boot loader, then restart`

const written = ({ name, value }: BootArgument) => `${name}=${value}`

/** Undefined where there is no GRUB; empty where it says so already. */
function changedFiles(seen: Seen, argument: BootArgument): [string, string][] | undefined {
  const text = written(argument)
  const own = [...seen.files].filter(([path]) => path === mainFile || path.startsWith(`${dropInDir}/`))
  const values = own.flatMap(([, content]) =>
    variables(content).flatMap(({ value }) => bootArgument(value, argument.name) ?? []),
  )
  if (values.length > 0) {
    return own.flatMap(([path, content]): [string, string][] => {
      const after = eachVariable(content, (value) => value.replace(argumentPattern(argument.name), `$1${text}`))
      return after === content ? [] : [[path, after]]
    })
  }
  if (seen.directories.has(dropInDir)) {
    const line = `GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT ${text}"\n`
    return [
      [dropIn, `${seen.files.get(dropIn) ?? '# Written by nestvm enable; nestvm enable --undo removes it.\n'}${line}`],
    ]
  }
  const main = seen.files.get(mainFile)
  if (main === undefined) return undefined
  const target = variables(main).some(({ name }) => name === 'GRUB_CMDLINE_LINUX_DEFAULT')
    ? 'GRUB_CMDLINE_LINUX_DEFAULT'
    : 'GRUB_CMDLINE_LINUX'
  if (!variables(main).some(({ name }) => name === target)) {
    return [[mainFile, `${withNewline(main)}${target}="$${target} ${text}"\n`]]
  }
  return [[mainFile, eachVariable(main, (value, name) => (name === target ? `${value} ${text}`.trimStart() : value))]]
}

/** What makes GRUB's menu of its configuration and of the kernels that are there. */
export function updateGrub({ programs, directories }: Seen, wanted: readonly BootArgument[]): CommandStep[] {
  const why = 'GRUB starts the kernel with it'
  const step = (...argv: string[]): CommandStep => ({ kind: 'command', argv, undo: [argv], why })
  // Where each kernel has an entry of its own (Fedora, RHEL), these hold the arguments.
  if (programs.has('grubby')) {
    const change = (how: string) => ['grubby', '--update-kernel=ALL', `--${how}=${wanted.map(written).join(' ')}`]
    return [{ kind: 'command', argv: change('args'), undo: [change('remove-args')], why }]
  }
  if (programs.has('update-grub')) return [step('update-grub')]
  if (programs.has('grub2-mkconfig')) return [step('grub2-mkconfig', '-o', '/boot/grub2/grub.cfg')]
  const dir = directories.has('/boot/grub2') ? '/boot/grub2' : '/boot/grub'
  return [step('grub-mkconfig', '-o', `${dir}/grub.cfg`)]
}

/** What precedes the argument, and its value. */
const argumentPattern = (name: string) =>
  new RegExp(`(^|\\s)${name.replace(/[-_]/g, '[-_]').replaceAll('.', '\\.')}=(\\S+)`, 'g')

/** What the shell would put together from several parts is left out. */
const variablePattern =
  /^([ \t]*(GRUB_CMDLINE_LINUX(?:_DEFAULT)?)=)(?:"((?:[^"\\\n]|\\.)*)"|'([^'\n]*)'|([^\s"'#;\\]*))(?=[\s;]|$)/gm

function variables(text: string): { name: string; value: string }[] {
  return [...text.matchAll(variablePattern)].map(([, , name = '', double, single, bare]) => {
    return { name, value: double ?? single ?? bare ?? '' }
  })
}

/** The text with other values for the variables of the kernel's command line. */
function eachVariable(text: string, change: (value: string, name: string) => string): string {
  return text.replace(
    variablePattern,
    (whole, start: string, name: string, double?: string, single?: string, bare?: string) => {
      const value = double ?? single ?? bare ?? ''
      const after = change(value, name)
      if (after === value) return whole
      return single === undefined ? `${start}"${after}"` : `${start}'${after}'`
    },
  )
}

const withNewline = (text: string) => (text === '' || text.endsWith('\n') ? text : `${text}\n`)
