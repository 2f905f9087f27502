import type { Command } from 'commander'

/** The commands that take machines as operands. */
const takeMachines = ['exec', 'shell', 'cp', 'logs', 'console', 'inspect', 'stop', 'rm']
/** Prints the running machines' paths, one a line. */
const listMachines = `nestvm ls --all --json 2>/dev/null | sed -n 's/^ *"machine": "\\(.*\\)",*$/\\1/p'`

/** Made from the commands themselves, so that it never falls behind them. */
export function completionScript(shell: 'bash' | 'zsh' | 'fish', program: Command): string {
  const commands = program.commands
    .map((command) => ({
      name: command.name(),
      description: command.description(),
      options: command.options.flatMap(({ short, long }) => [short, long].filter((flag) => flag !== undefined)),
      choices: command.options.flatMap(({ long, argChoices }) =>
        long && argChoices ? [[long, argChoices] as const] : [],
      ),
    }))
    .filter(({ description }) => description !== '')
  return { bash, zsh, fish }[shell](commands)
}

interface Described {
  name: string
  description: string
  options: string[]
  /** Options that take one of some words. */
  choices: (readonly [option: string, words: readonly string[]])[]
}

function bash(commands: Described[]): string {
  return `# bash completion for nestvm
_nestvm() {
  local word=\${COMP_WORDS[COMP_CWORD]} words
  if [ "$COMP_CWORD" = 1 ]; then words="${commands.map(({ name }) => name).join(' ')}"
  else
    case \${COMP_WORDS[1]} in
${commands.map(({ name, options }) => `      ${name}) words="${options.join(' ')}" ;;`).join('\n')}
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

function zsh(commands: Described[]): string {
  return `#compdef nestvm
autoload -U +X bashcompinit && bashcompinit
${bash(commands)}`
}

function fish(commands: Described[]): string {
  const lines = commands.flatMap(({ name, description, options, choices }) => [
    `complete -c nestvm -n __fish_use_subcommand -a ${name} -d '${description.replaceAll("'", "\\'")}'`,
    ...options
      .filter((flag) => flag.startsWith('--'))
      .map((flag) => {
        const words = choices.find(([option]) => option === flag)?.[1]
        const values = words ? ` -xa '${words.join(' ')}'` : ''
        return `complete -c nestvm -n '__fish_seen_subcommand_from ${name}' -l ${flag.slice(2)}${values}`
      }),
  ])
  const machines = `complete -c nestvm -n '__fish_seen_subcommand_from ${takeMachines.join(' ')}' -a '(${listMachines.replaceAll("'", "\\'")})'`
  return `# fish completion for nestvm\ncomplete -c nestvm -f\n${lines.join('\n')}\n${machines}\n`
}
