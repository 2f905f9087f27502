import type { Command, Option } from 'commander'

/** Prints the machines' paths, one a line, each with `suffix`, which is a variable of the shell. */
const listMachines = (suffix: string) =>
  `nestvm ls --all --json 2>/dev/null | sed -n 's/^ *"machine": "\\(.*\\)",*$/\\1'"${suffix}"'/p'`

/** Made from the commands themselves, so that it never falls behind them. */
export function completionScript(shell: 'bash' | 'zsh' | 'fish', program: Command): string {
  return { bash, zsh, fish }[shell](describe(program))
}

interface Described {
  /** The words that name it: none for nestvm itself. */
  path: readonly string[]
  description: string
  options: readonly DescribedOption[]
  /** What may follow its name: its commands, or what its first operand may be. Nothing where it takes none. */
  operand?: Value
  hasCommands: boolean
}

interface DescribedOption {
  flags: readonly string[]
  description: string
  value?: Value
}

interface Value {
  words?: readonly string[]
  /** Machines, with what comes behind their paths. */
  machines?: '' | ':'
  files?: boolean
}

const file: Value = { files: true }
const place: Value = { machines: ':', files: true }

/** What values may be, by what the help calls them. */
const values: Record<string, Value> = {
  machine: { machines: '' },
  ...{ source: place, destination: place },
  ...{ file, path: file, dir: file, 'host:guest[:ro]': file },
  ...{ kernel: file, profile: file, reference: file },
}

/** A command and all within it. Those beside it are what `help` is for. */
function describe(command: Command, path: readonly string[] = [], beside: readonly string[] = []): Described[] {
  const help = command.createHelp()
  const commands = help.visibleCommands(command)
  const names = commands.map((inner) => inner.name())
  const described = {
    path,
    description: command.description(),
    options: help.visibleOptions(command).map(describeOption),
    operand: names.length > 0 ? { words: names } : operandOf(command, beside),
    hasCommands: names.length > 0,
  }
  return [described, ...commands.flatMap((inner) => describe(inner, [...path, inner.name()], names))]
}

function operandOf(command: Command, beside: readonly string[]): Value | undefined {
  const [first] = command.registeredArguments
  return first && (command.name() === 'help' ? { words: beside } : valueNamed(first.name(), first.argChoices))
}

function describeOption({ short, long, description, required, flags, argChoices }: Option): DescribedOption {
  return {
    flags: [short, long].filter((flag) => flag !== undefined),
    description,
    // What may do without a value takes none from the next word.
    value: required ? valueNamed(/<(.+)>$/.exec(flags)?.[1], argChoices) : undefined,
  }
}

const valueNamed = (name = '', words?: readonly string[]): Value => (words ? { words } : (values[name] ?? {}))

/** A pattern for the words before the one to be completed, each of them between two spaces of its own. */
function patternOf({ path, hasCommands }: Pick<Described, 'path' | 'hasCommands'>): string {
  return ` ${path.join('  ')} ${hasCommands ? '' : '*'}`
}

const howToComplete = '-o bashdefault -o default -F _nestvm'

function bash(commands: readonly Described[]): string {
  return `# bash completion for nestvm
_nestvm_machines() {
  ${listMachines('$1')}
}
_nestvm() {
  # The = of --option=value is a word to bash.
  local word=\${COMP_WORDS[COMP_CWORD]#=} before words=
  printf -v before ' %s ' "\${COMP_WORDS[@]:1:$((COMP_CWORD - 1))}"
  case \${before% = } in
    *' -- '*) ;;
${commands.flatMap(bashCases).join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [[ \${COMPREPLY-} == *: ]] && compopt -o nospace 2>/dev/null
}
complete ${howToComplete} nestvm
`
}

/** Where no words are known, the shell offers what it would without this script: names of files. */
function bashCases(command: Described): string[] {
  const pattern = patternOf(command)
  const ofValues = command.options.flatMap(({ flags, value }) => {
    const patterns = flags.map((flag) => bashPattern(`${pattern} ${flag} `))
    return value ? [bashCase(patterns, bashWords(value))] : []
  })
  return [...ofValues, bashCase([bashPattern(pattern)], bashOperand(command))]
}

function bashOperand({ options, operand }: Described): string {
  const flags = `words='${options.flatMap(({ flags }) => flags).join(' ')}'`
  if (!operand) return flags
  const words = bashWords(operand)
  return `[[ $word == -* ]] && ${flags}${words && ` || ${words}`}`
}

function bashWords({ words, machines }: Value): string {
  if (words) return `words='${words.join(' ')}'`
  return machines === undefined ? '' : `words=$(_nestvm_machines '${machines}')`
}

function bashCase(patterns: readonly string[], then: string): string {
  return `    ${patterns.join('|')}) ${then ? `${then} ` : ''};;`
}

/** All but the asterisks is quoted. */
const bashPattern = (pattern: string) => pattern.replace(/[^*]+/g, "'$&'")

function zsh(commands: readonly Described[]): string {
  return `#compdef nestvm
autoload -U +X bashcompinit && bashcompinit
${bash(commands)}# As a file of fpath this is run by the first completion, which is still to be done.
if [[ "\${funcstack[1]}" = _nestvm ]]; then _bash_complete ${howToComplete}; fi
`
}

function fish(commands: readonly Described[]): string {
  return `# fish completion for nestvm
function __nestvm_machines
  ${listMachines('$argv')}
end
# Takes a pattern for the words before, or --, after which all is another program's.
function __nestvm_after
  set -l before (printf ' %s ' (commandline -poc)[2..-1])
  if string match -q -- '* -- *' "$before"
    test "$argv" = --
  else
    string match -q -- "$argv" "$before"
  end
end
complete -c nestvm -f
complete -c nestvm -n '__nestvm_after --' -F
${commands.flatMap(fishLines).join('\n')}
`
}

function fishLines(command: Described): string[] {
  const { path, description, options, operand, hasCommands } = command
  const outer = patternOf({ path: path.slice(0, -1), hasCommands: true })
  const own = patternOf(command)
  const name = path.length > 0 ? [fishLine(outer, `-a ${path.at(-1)}`, description)] : []
  const operands = operand && !hasCommands ? [fishLine(own, fishValue(operand))] : []
  return [...name, ...operands, ...options.map((option) => fishLine(own, fishOption(option), option.description))]
}

function fishLine(pattern: string, what: string, description?: string): string {
  const condition = quoted(`__nestvm_after "${pattern}"`)
  return `complete -c nestvm -n ${condition} ${what}${description ? ` -d ${quoted(description)}` : ''}`
}

function fishOption({ flags, value }: DescribedOption): string {
  const names = flags.map((flag) => flag.replace(/^--/, '-l ').replace(/^-(?=\w$)/, '-s '))
  return [...names, ...(value ? [`-r ${fishValue(value)}`] : [])].join(' ')
}

function fishValue({ words, machines, files }: Value): string {
  const offered = words?.join(' ') ?? (machines === undefined ? undefined : `(__nestvm_machines "${machines}")`)
  return `${files ? '-F' : '-f'}${offered ? ` -a ${quoted(offered)}` : ''}`
}

const quoted = (text: string) => `'${text.replace(/[\\']/g, '\\$&')}'`
