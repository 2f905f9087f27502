import type { Command } from 'commander'

/** The commands that take machines as operands. */
const takeMachines = ['exec', 'shell', 'cp', 'logs', 'console', 'inspect', 'stop', 'rm', 'report']
/** Prints the running machines' paths, one a line. */
const listMachines = `nestvm ls --all --json 2>/dev/null | sed -n 's/^ *"machine": "\\(.*\\)",*$/\\1/p'`

/** Made from the commands themselves, so that it never falls behind them. */
export function completionScript(shell: 'bash' | 'zsh' | 'fish', program: Command): string {
  return { bash, zsh, fish }[shell](describe(program))
}

interface Described {
  name: string
  description: string
  options: string[]
  /** Options that take one of some words. */
  choices: (readonly [option: string, words: readonly string[]])[]
  commands: Described[]
}

/** Hidden commands have no description. */
function describe(command: Command): Described[] {
  const shown = command.commands.filter((inner) => inner.description() !== '')
  return shown.map((inner) => ({
    name: inner.name(),
    description: inner.description(),
    options: inner.options.flatMap(({ short, long }) => [short, long].filter((flag) => flag !== undefined)),
    choices: inner.options.flatMap(({ long, argChoices }) => (long && argChoices ? [[long, argChoices] as const] : [])),
    commands: describe(inner),
  }))
}

function bash(commands: Described[]): string {
  return `# bash completion for nestvm
_nestvm() {
  local word=\${COMP_WORDS[COMP_CWORD]} words
  if [ "$COMP_CWORD" = 1 ]; then words="${names(commands)}"
  else
    case \${COMP_WORDS[1]} in
${commands.map((command) => `      ${command.name}) ${wordsOf(command)} ;;`).join('\n')}
    esac
    case \${COMP_WORDS[1]} in
      ${takeMachines.join('|')}) [[ $word == -* ]] || words=$(${listMachines}) ;;
    esac
    [ "\${COMP_WORDS[COMP_CWORD-1]}" = --on ] && words=$(${listMachines})
    case \${COMP_WORDS[1]}\${COMP_WORDS[COMP_CWORD-1]} in
${commands.flatMap(({ name, choices }) => choices.map(([option, words]) => `      ${name}${option}) words="${words.join(' ')}" ;;`)).join('\n')}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -F _nestvm nestvm
`
}

/** What may follow a command: its options, or its own commands, and then theirs. */
function wordsOf({ options, commands }: Described): string {
  if (commands.length === 0) return `words="${options.join(' ')}"`
  const inner = commands.map(({ name, options }) => `${name}) words="${options.join(' ')}" ;;`)
  return `if [ "$COMP_CWORD" = 2 ]; then words="${names(commands)}"; else case \${COMP_WORDS[2]} in ${inner.join(' ')} esac; fi`
}

const names = (commands: Described[]) => commands.map(({ name }) => name).join(' ')

function zsh(commands: Described[]): string {
  return `#compdef nestvm
autoload -U +X bashcompinit && bashcompinit
${bash(commands)}`
}

function fish(commands: Described[]): string {
  const lines = commands.flatMap((command) => fishLines(command, '__fish_use_subcommand', command.name))
  const machines = `complete -c nestvm -n '__fish_seen_subcommand_from ${takeMachines.join(' ')}' -a '(${quoted(listMachines)})'`
  return `# fish completion for nestvm\ncomplete -c nestvm -f\n${lines.join('\n')}\n${machines}\n`
}

/** `when` tells where the command may come; `seen` are the words that it and its options follow. */
function fishLines({ name, description, options, choices, commands }: Described, when: string, seen: string): string[] {
  const after = seen
    .split(' ')
    .map((word) => `__fish_seen_subcommand_from ${word}`)
    .join('; and ')
  const fresh = `${after}; and not __fish_seen_subcommand_from ${names(commands)}`
  return [
    `complete -c nestvm -n '${when}' -a ${name} -d '${quoted(description)}'`,
    ...options
      .filter((flag) => flag.startsWith('--'))
      .map((flag) => {
        const words = choices.find(([option]) => option === flag)?.[1]
        return `complete -c nestvm -n '${after}' -l ${flag.slice(2)}${words ? ` -xa '${words.join(' ')}'` : ''}`
      }),
    ...commands.flatMap((inner) => fishLines(inner, fresh, `${seen} ${inner.name}`)),
  ]
}

const quoted = (text: string) => text.replaceAll("'", "\\'")
