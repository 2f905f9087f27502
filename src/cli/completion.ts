import { Argument, Command } from 'commander'
import { completionScript } from './completion-script.ts'

/** `program` must have all its commands by the time that this one runs. */
export function completionCommand(program: Command): Command {
  return new Command('completion')
    .description('Print a completion script for a shell.')
    .addArgument(new Argument('<shell>').choices(['bash', 'zsh', 'fish']))
    .addHelpText('after', '\nExample:\n  $ source <(nestvm completion bash)')
    .action((shell: 'bash' | 'zsh' | 'fish') => {
      process.stdout.write(completionScript(shell, program))
    })
}
