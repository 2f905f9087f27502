import { Command } from 'commander'
import { session } from './session.ts'

export function cpCommand(): Command {
  return new Command('cp')
    .description('Copy files and directories between this host and machines.')
    .argument('<source>', 'a path, or MACHINE:PATH')
    .argument('<destination>', 'a path, or MACHINE:PATH')
    .addHelpText(
      'after',
      `
Examples:
  $ nestvm cp notes.txt outer/inner:/root/
  $ nestvm cp outer:/etc/os-release .`,
    )
    .action((source: string, destination: string) =>
      session(false, async ({ context }) => {
        const { copy } = await import('../stack/copy.ts')
        await copy(context, source, destination)
        return 0
      }),
    )
}
