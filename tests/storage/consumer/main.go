// A program in another language than the components: it makes a bucket for archives with
// AwsStorage, and exports what it is told of it. Its argument is the folder of its project.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/pulumi/pulumi/sdk/v3/go/auto"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/optup"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

type awsStorage struct {
	pulumi.ResourceState
	Location        pulumi.StringOutput `pulumi:"location"`
	WriterPolicyArn pulumi.StringOutput `pulumi:"writerPolicyArn"`
	WriterRoleArn   pulumi.StringOutput `pulumi:"writerRoleArn"`
}

func program(ctx *pulumi.Context) error {
	storage := &awsStorage{}
	inputs := pulumi.Map{
		"bucket":              pulumi.String(os.Getenv("CONSUMER_BUCKET")),
		"prefix":              pulumi.String("production"),
		"abortUnfinishedDays": pulumi.Int(3),
		"transitions":         pulumi.IntMap{"GLACIER_IR": pulumi.Int(30)},
		"writerPrincipals":    pulumi.StringArray{pulumi.String("ec2.amazonaws.com")},
	}
	err := ctx.RegisterRemoteComponentResource(
		"epibackup:index:AwsStorage", "backups", inputs, storage)
	if err != nil {
		return err
	}
	ctx.Export("location", storage.Location)
	ctx.Export("writer_policy", storage.WriterPolicyArn)
	ctx.Export("writer_role", storage.WriterRoleArn)
	return nil
}

func update(folder string) error {
	ctx := context.Background()
	stack, err := auto.UpsertStackInlineSource(
		ctx, "test", "consumer", program, auto.WorkDir(folder))
	if err != nil {
		return err
	}
	done, err := stack.Up(ctx, optup.ProgressStreams(os.Stderr))
	if err != nil {
		return err
	}
	for _, name := range []string{"location", "writer_policy", "writer_role"} {
		fmt.Printf("%s=%v\n", name, done.Outputs[name].Value)
	}
	return nil
}

func main() {
	if err := update(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
